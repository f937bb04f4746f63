"""The command `report`."""

from pathlib import Path

from kth_lightning.cli.parser import Parser
from kth_lightning.io.curve_folder import CurveFolder
from kth_lightning.io.run_folder import RunFolder
from kth_lightning.report.curve_page import write_curve
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
    parser.add_argument("folder", type=str, help="The run folder, or the folder that compare or learning_curve wrote.")
    folder = Path(parser.parse_args(argv).folder)
    curve = CurveFolder(folder)
    if curve.runs():
        write_curve(curve)
    else:
        write_report(folder)
    print(f"The report is in {RunFolder(folder).report}")
