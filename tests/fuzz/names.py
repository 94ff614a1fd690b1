"""The names of the kinds, without importing what reads them: atheris is to see these imports."""

NAMES = (
    *("images", "masks", "datasets", "model_records", "model_tensors", "model_bytes"),
    *("run_records", "finished_records", "result_tables", "weights", "flags"),
)
