"""The command `report`."""

from pathlib import Path

from kth_lightning.cli.parser import Parser
from kth_lightning.report.page import write_report


def report_command(argv: list[str]) -> None:
    """Carry out `report`.

    Args:
        argv: The command line behind `report`.

    Raises:
        InputError: There is no finished run, or the report cannot be written.
    """
    parser = Parser(
        prog="python -m kth_lightning report",
        description="Write the results of a run, or of a comparison, as one HTML page.",
    )
    parser.add_argument("folder", type=str, help="The run folder, or the folder that compare wrote.")
    print(f"The report is in {write_report(Path(parser.parse_args(argv).folder))}")
