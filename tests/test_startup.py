"""Help and mistakes are answered at once, and an interrupted or failing import has its status.

Each test runs the program in a process of its own.
"""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import main
from tests.support import ROOT, make_data
from utils.options.evaluate import EvaluateOptions
from utils.result_folder import ResultFolder
from utils.results import ResultRow

HEAVY = ("torch", "torchvision", "timm", "faiss", "matplotlib", "cv2", "scipy", "sklearn")
# Runs the program on the arguments; the last line of its output is the exit status and the heavy
# packages that were imported.
RUN = f"""
import json, runpy, sys
sys.argv[0] = "main.py"
try:
    runpy.run_path({str(ROOT / "main.py")!r}, run_name="__main__")
except SystemExit as ended:
    print(json.dumps([ended.code, [name for name in {HEAVY} if name in sys.modules]]))
"""
# A shell makes its background jobs, and so the processes of the tests, ignore SIGINT; nohup makes
# them ignore SIGHUP.
HEED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""
# Does something when a module is about to be imported, before the program starts.
AT_IMPORT = """
import importlib.abc, os, signal, sys
class AtImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            {action}
sys.meta_path.insert(0, AtImport())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with data and an empty folder."""
    folder = tmp_path_factory.mktemp("folder")
    make_data(folder / "data")
    (folder / "empty").mkdir()
    return folder


def run(folder: Path, text: str, code: str = RUN) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", HEED + code, *text.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("command", ["", *main.COMMANDS])
def test_help_imports_nothing_heavy(folder, command):
    process = run(folder, f"{command} --help")
    *shown, last = process.stdout.splitlines()
    assert json.loads(last) == [0, []]
    assert shown[0].startswith("usage: python main.py")
    for flag in re.findall(r"^  (-.*(?:\n {4,}.*)*)", process.stdout, re.MULTILINE):
        assert re.search(r"\s{2,}\w", flag), f"no explanation of {flag}"
    assert shown[-len(main.COMMANDS) :] == [f"  {n:<10} {t}" for n, t in main.COMMANDS.items()]


DATA = "--path_data data"
IMAGE = "data/widget/train/good/000.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evalute", "expected a command (evaluate, demo, "),
        ("evalute", "'evalute'. Did you mean evaluate?"),
        ("--topk 3", "unrecognized arguments: --topk 3"),
        ("--k 0", "expected k of at least 1, found 0 (--k)"),
        ("--precision int8", "argument --precision: expected "),
        ("--threshold often", "expected --threshold train_quantile, f1_max or a number"),
        ("--size_crop 300", "expected size_crop at most size_resize"),
        ("--device gpu:x", "expected a torch device such as"),
        ("", "found nothing at mvtec_anomaly_detection (--path_data)"),
        ("--path_data empty", "expected folders <category>/train/good"),
        (f"--path_data {IMAGE}", "expected a folder, a CSV list or COCO annotations"),
        (f"{DATA} --dataset mvtek", "expected a dataset name (auto, autovi, "),
        (f"{DATA} --dataset mvtec_add", "found 'mvtec_add' (--dataset). Did you mean mvtec_ad"),
        (f"{DATA} --dataset dagm", "expected --dataset dagm at data: it is not in this layout"),
        (f"{DATA} --holdout 1", "expected holdout in (0, 0.9], found 1 (--holdout)"),
        (f"{DATA} --categories wigdet", "'wigdet' in data (--categories). Did you mean widget"),
        (f"{DATA} --weights w.pth", "no weights file w.pth (--weights)"),
        ("demo --categories bottel", "found 'bottel' (--categories)"),
        ("demo --weights w.pth", "no weights file w.pth (--weights)"),
        ("train --seed 1 2", "expected one --seed"),
        ("train --path_data nowhere", "found nothing at nowhere (--path_data)"),
        (f"train {DATA} --categories wigdet", ", found 'wigdet' in data (--categories)"),
        ("train nowhere.png --category x", "no such file or folder: nowhere.png"),
        (f"train {IMAGE} --category x --weights w.pth", "no weights file w.pth (--weights)"),
        (f"train {IMAGE} --extend empty", "expected the folder of a trained model"),
        ("infer", "expected images to judge"),
        ("infer --watch nowhere", "expected a folder to watch, found none: nowhere (--watch)"),
        ("infer nowhere.png", "no such file or folder: nowhere.png"),
        ("infer no?here.png", "expected files that match no?here.png, found none"),
        (f"infer {IMAGE} --frame_stride 0", "expected frame_stride of at least 1, found 0"),
        (f"infer {IMAGE}", "expected trained models in trained, found no such folder"),
        (f"infer {IMAGE} --weights w.pth", "no weights file w.pth (--weights)"),
        ("export --format pt", "argument --format: expected onnx, torch, found 'pt'"),
        ("export --path_trained empty", "expected trained models in empty, found none"),
        ("export --images nowhere.png", "no such file or folder: nowhere.png (--images)"),
        ("download --to x", "expected the NAME of a dataset and --to FOLDER"),
        ("demo --categories weeve", "found 'weeve' (--categories). Did you mean weave?"),
        ("download btda --to x", "found 'btda'. Did you mean btad?"),
        ("download mpdd --to x", "MPDD has no public address of an archive"),
        ("download btad --to x", "BTAD has a licence"),
        ("download btad --archive nowhere.zip --to x", "expected an archive, found no file"),
        (f"train {DATA} --shots 1 2", "expected one number of training images"),
        (f"{DATA} --shots 0", "expected shots of at least 1, found 0 (--shots)"),
        ("tables nowhere", "expected a result folder with run.json"),
    ],
)
def test_a_mistake_is_reported_without_importing_anything_heavy(folder, text, message):
    process = run(folder, text)
    assert process.stdout.count("\n") == 1
    assert json.loads(process.stdout) == [main.WRONG_USAGE, []]
    assert process.stderr.startswith("error: ")
    assert message in process.stderr
    assert "Traceback" not in process.stderr


def test_a_mistake_that_is_found_after_the_imports_is_one_line_too(folder):
    process = run(folder, f"{DATA} --backbone nosuch")
    assert json.loads(process.stdout)[0] == main.WRONG_USAGE
    assert re.fullmatch("error: .*found 'nosuch' .*\n", process.stderr)


def test_tables_are_made_without_anything_heavy(folder):
    row = ResultRow("widget", 0.1, 1, 0, 6, 6, {"image_auroc": 0.75}, {"read": 1.0}, "resnet18")
    results = ResultFolder(folder / "run")
    results.write_rows([row])
    record = {"state": "complete", "command": "python main.py", "start": "now", "notes": []}
    record |= {"device": "CPU", "cpu": "a processor", "weights_digest": {"resnet18": "abc"}}
    results.write_run(record | {"options": asdict(EvaluateOptions(layers=(("layer2",),)))})
    process = run(folder, "tables run --path_result made")
    *shown, last = process.stdout.splitlines()
    assert json.loads(last) == [0, []], process.stderr
    assert any(line.startswith("| widget |") and "75.00" in line for line in shown)
    assert (folder / "made/tables.md").is_file()


@pytest.mark.parametrize("name", ["logging", "utils.errors", "utils.pipeline.evaluation", "torch"])
def test_an_interrupted_import_ends_without_a_traceback(folder, name):
    interrupt = "os.kill(os.getpid(), signal.SIGINT)"
    process = run(folder, DATA, AT_IMPORT.format(name=name, action=interrupt) + RUN)
    assert json.loads(process.stdout)[0] == main.INTERRUPTED
    assert process.stderr == "interrupted; finished results are kept\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_end_it_too(folder, name):
    number = getattr(signal, name)
    action = f"os.kill(os.getpid(), {number:d})"
    process = run(folder, DATA, AT_IMPORT.format(name="torch", action=action) + RUN)
    assert json.loads(process.stdout)[0] == 128 + number
    assert process.stderr == f"ended by signal {number:d}; finished results are kept\n"


def test_a_signal_that_is_ignored_stays_ignored(folder):
    """As by a shell for background jobs, and by nohup."""
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    action = "os.kill(os.getpid(), signal.SIGHUP)"
    at_import = AT_IMPORT.format(name="utils.commands.tables", action=action)
    process = run(folder, "tables nowhere", code + at_import + RUN)
    assert json.loads(process.stdout) == [main.WRONG_USAGE, []]


ENDING = """
import os, signal, subprocess, sys, time
import main

number, delay = int(sys.argv[1]), sys.argv[2]

def interrupted(arguments):
    # A second signal arrives while the run ends, or while the interpreter shuts down.
    again = f"sleep {delay}; kill -{number} {os.getpid()}"
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt as error:
        child = subprocess.Popen(["sh", "-c", again])
        if delay == "0":
            child.wait()
        return 128 + error.args[0]

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(1)

main.main = interrupted
keep = Slow()
sys.exit(main.run_script([]))
"""


@pytest.mark.parametrize("delay", ["0", "0.4"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_changes_nothing(folder, number, delay):
    process = subprocess.run(
        [sys.executable, "-c", HEED + ENDING, str(int(number)), delay],
        check=False,
        cwd=folder,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (process.returncode, process.stderr) == (128 + number, b"")


ENDED_LATER = """
import os, signal, sys, time
import main

def interrupted(arguments):
    heeded = []
    for pause in (0, 0, 0.2):
        time.sleep(pause)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            heeded.append(False)
        except KeyboardInterrupt:
            heeded.append(True)
    print(heeded)
    return 0

main.main, main.ENDING_SECONDS = interrupted, 0.1
sys.exit(main.run_script([]))
"""


def test_a_signal_ends_a_run_that_takes_too_long_to_end():
    command = [sys.executable, "-c", HEED + ENDED_LATER]
    process = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert process.stdout == "[True, False, True]\n"


DROPPED = """
import os, signal, sys, time, weakref
import main

main.CHECK_SECONDS = 0.1

class Object:
    pass

def interrupted(arguments):
    kept = Object()
    watched = weakref.ref(kept, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del kept  # Python drops the exception of this callback
    try:
        time.sleep(10)
        print("went on")
    except KeyboardInterrupt as error:
        try:
            time.sleep(0.3)  # what a run does at its end is not interrupted
            print("ended")
        finally:
            time.sleep(0.3)
        return 128 + error.args[0]

main.main = interrupted
sys.exit(main.run_script([]))
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the platform has no timer")
def test_a_signal_ends_the_run_even_if_a_callback_drops_its_exception(folder):
    process = run(folder, "", DROPPED)
    assert (process.returncode, process.stdout) == (128 + signal.SIGTERM, "ended\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_full_standard_output_is_one_line(folder):
    code = "import main, sys; main.main = lambda _: print('lost'); sys.exit(main.run_script([]))"
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-c", code],
            check=False,
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.returncode == main.WRONG_USAGE
    assert process.stderr == "error: No space left on device; finished results are kept\n"


def test_an_error_of_the_system_names_its_file():
    code = """import main, sys
def fail(*_, **__): raise OSError(24, "Too many open files", "a\\nb.png")
sys.modules["utils.commands.tables"], sys.main = sys, fail
sys.exit(main.run_script(["tables"]))"""
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == main.WRONG_USAGE
    expected = "error: Too many open files: a\\nb.png; finished results are kept\n"
    assert process.stderr == expected


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_an_output_that_nobody_reads_ends_the_command_silently(unbuffered):
    """As with `| head -1`: when a line is printed, or when all of them are flushed at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    code = """import main, sys
sys.modules["utils.commands.tables"] = sys
sys.main = lambda *_, **__: print("lost")
sys.exit(main.run_script(["tables"]))"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (main.INTERRUPTED, "")


@pytest.mark.parametrize("stream", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_streams_are_no_fault(folder, stream):
    script = f"{sys.executable} {ROOT / 'main.py'} tables nowhere --path_result made {stream}"
    process = subprocess.run(["sh", "-c", script], check=False, cwd=folder, capture_output=True)
    assert process.returncode == main.WRONG_USAGE


@pytest.mark.parametrize("flag", ["-I", "-P"])
def test_a_search_path_without_the_programs_folder_is_no_fault(folder, flag):
    if flag == "-P" and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no such flag")
    arguments = [sys.executable, flag, str(ROOT / "main.py"), "tables", "nowhere"]
    process = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=folder)
    assert process.returncode == main.WRONG_USAGE
    assert process.stderr.startswith("error: expected a result folder with run.json")


def test_a_deleted_current_folder_is_one_line(folder):
    command = f"mkdir gone; cd gone; rmdir ../gone; exec {sys.executable} {ROOT / 'main.py'}"
    process = subprocess.run(
        ["sh", "-c", f"{command} --path_data {folder / 'data'}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert process.returncode == main.WRONG_USAGE
    expected = "error: cannot use the current folder: No such file or directory; change to another"
    assert process.stderr == f"{expected} one\n"


@pytest.mark.parametrize(
    "text",
    [
        "MemoryError()",
        "RuntimeError('cannot allocate memory')",
        "ImportError('libtorch_cpu.so: failed to map segment from shared object')",
    ],
)
def test_an_exhausted_memory_is_one_line(folder, text):
    action = f"raise {text}"
    process = run(folder, DATA, AT_IMPORT.format(name="torch", action=action) + RUN)
    assert json.loads(process.stdout)[0] == main.WRONG_USAGE
    assert re.fullmatch("error: out of memory .*\n", process.stderr)


def test_an_extension_module_may_turn_an_interruption_into_another_error(folder):
    """As NumPy's C interface does."""
    action = "os.kill(os.getpid(), signal.SIGINT)"
    swallow = (
        f"try: {action}\n"
        "            except KeyboardInterrupt: raise ImportError('numpy.core failed to import')"
    )
    process = run(folder, DATA, AT_IMPORT.format(name="torch", action=swallow) + RUN)
    assert json.loads(process.stdout)[0] == main.INTERRUPTED
    assert process.stderr == "interrupted; finished results are kept\n"


@pytest.mark.parametrize("name", ["utils.errors", "torch"])
def test_an_import_that_fails_has_a_status_of_its_own(folder, name):
    process = run(folder, DATA, AT_IMPORT.format(name=name, action="raise ImportError('x')") + RUN)
    assert json.loads(process.stdout)[0] == main.CRASHED
    assert process.stderr.splitlines()[-1] == "ImportError: x"
