import subprocess
import sys


def test_a_line_is_in_the_log_at_once() -> None:
    program = (
        "import os\nfrom kubeloop.components.progress import print_line\n"
        "print_line('epoch=1')\nos._exit(0)"  # leaves no time to write what was kept back
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"epoch=1\n"
