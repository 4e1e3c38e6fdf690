"""Child processes end with their parent, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cli.processes import Child
from features.errors import SeminarError

PARENT = """
import sys, threading
from pathlib import Path
from cli.processes import Child
from streaming import topics
from streaming.broker import EmbeddedBroker
home = Path(sys.argv[1])
try:
    with EmbeddedBroker(home / "broker") as broker:
        topics.apply(broker.bootstrap)
        with Child(["consume", "--bootstrap", broker.bootstrap], home / "consumer.log") as child:
            print(broker._process.pid, child.pid, flush=True)
            threading.Event().wait()
except KeyboardInterrupt:
    pass
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_parent(home: Path, ending: signal.Signals) -> None:
    pytest.importorskip("noida_db", reason="the extra demo is not installed")
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + PARENT
    with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        os.kill(parent.pid, ending)
        parent.wait(60)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive


def test_a_child_that_ended_is_reported_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path / "nowhere"))
    with Child(["serve", "--port", "0"], tmp_path / "log") as child:
        child.wait(60)
        with pytest.raises(SeminarError, match=r"ended with 1.*seminar apply"):
            child.check()
