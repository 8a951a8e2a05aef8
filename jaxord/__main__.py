"""The command `jaxord`: a run by its flags, or one of the tools by its name.

jaxord --config=hci:method=coop        as python -m jaxord.main
jaxord sweep experiments/hci.py        as python tools/sweep.py
"""

import runpy
import sys

from jaxord import shipped

TOOLS = {
    "sweep": "sweep",
    "table": "table",
    "sweep-report": "sweep_report",
    "verify": "verify_data",
    "prepare": "prepare_data",
    "convert": "convert_weights",
    "concepts": "make_concepts",
}


def main():
    shipped.make_importable()
    if len(sys.argv) > 1 and sys.argv[1] in TOOLS:
        tool = sys.argv.pop(1)
        sys.argv[0] = f"jaxord {tool}"
        runpy.run_module(f"tools.{TOOLS[tool]}", run_name="__main__", alter_sys=False)
        return
    from jaxord import main as run

    run.start()


if __name__ == "__main__":
    main()
