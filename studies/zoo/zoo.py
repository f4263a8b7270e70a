"""Imports the networks of torchvision and timm as PyTorch exports them, and compares all layers with ONNX Runtime.

    cargo build --release && cargo build --release --example onnx_values
    python studies/zoo/zoo.py --folder target/zoo --keep none

Exports every network by both exporters of PyTorch with their default settings, runs the files in this program and in ONNX
Runtime, and writes the page. What is already in the folder is not repeated; `--again` repeats the check, and the export if its
file was deleted, as `--keep` asks.
"""

import argparse
import fnmatch
import json
import tempfile
import time
from pathlib import Path

import check
import export
import isolated
import table
from networks import Entry, entries

ROOT = Path(__file__).resolve().parent.parent.parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "target/zoo")
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/proxygrad")
    parser.add_argument("--values", type=Path, default=ROOT / "target/release/examples/onnx_values")
    parser.add_argument("--networks", default="*", help="names with wildcards, separated by commas")
    parser.add_argument("--exporters", default=",".join(export.EXPORTERS), help="separated by commas")
    parser.add_argument("--engines", default=",".join(check.ENGINES), help="separated by commas")
    parser.add_argument("--only", choices=("export", "check", "table"), help="one step instead of all")
    parser.add_argument("--keep", choices=("all", "failed", "none"), default="all", help="networks whose files stay")
    parser.add_argument("--again", choices=("failed", "all"), help="check these networks again")
    parser.add_argument("--limit", type=int, default=180, metavar="SECONDS", help="of processor time for each network")
    parser.add_argument("--mib", type=int, default=260, help="larger files are not kept")
    parser.add_argument("--total-gib", type=float, default=20, help="no exports beyond this size of the folder")
    parser.add_argument("--table", type=Path, help="write the table to this Markdown file")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    patterns = options.networks.split(",")
    chosen = [entry for entry in interleaved() if any(fnmatch.fnmatch(entry.name, each) for each in patterns)]
    if options.only in (None, "export"):
        with tempfile.TemporaryDirectory() as folder:
            export.warm_up(Path(folder))
    for entry in chosen:
        if options.again:
            forget(entry, options)
        if options.only in (None, "export"):
            export_missing(entry, options)
        if options.only in (None, "check"):
            for exporter in options.exporters.split(","):
                compare(options.folder / f"{entry.folder}-{exporter}", options)
    if options.only in (None, "table"):
        text = table.markdown(options.folder, entries(), export.EXPORTERS)
        (options.table or options.folder / "table.md").write_text(text)


def interleaved() -> list[Entry]:
    """The list with families mixed evenly, the quickest first: an interrupted run has seen some of each."""
    families: dict[str, list[Entry]] = {}
    for entry in entries():
        families.setdefault(entry.family, []).append(entry)
    places = [((i + 0.5) / len(family), entry) for family in families.values() for i, entry in enumerate(family)]
    quick = ("own/", "timm/test_")
    return [entry for _, entry in sorted(places, key=lambda place: (not place[1].name.startswith(quick), place[0]))]


def forget(entry: Entry, options: argparse.Namespace) -> None:
    """Deletes what is known about the files of a network that `--again` asks for."""
    for exporter in options.exporters.split(","):
        folder = options.folder / f"{entry.folder}-{exporter}"
        file = table.File.read(folder)
        if file is None or (options.again == "failed" and file.passed()):
            continue
        (folder / "check.json").unlink(missing_ok=True)
        if not (folder / "net.onnx").exists():
            (folder / "export.json").unlink()


def export_missing(entry: Entry, options: argparse.Namespace) -> None:
    folders = {exporter: options.folder / f"{entry.folder}-{exporter}" for exporter in options.exporters.split(",")}
    folders = {exporter: folder for exporter, folder in folders.items() if not (folder / "export.json").exists()}
    total = sum(file.stat().st_size for file in options.folder.rglob("net.onnx*"))
    if not folders or total > options.total_gib * 2**30:
        return
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    started = time.monotonic()
    why = isolated.run(lambda: export.export(entry, folders), options.limit, options.folder / "export.log")
    for exporter, folder in folders.items():
        size = sum(file.stat().st_size for file in folder.glob("net.onnx*"))
        note, failed = folder / "failed.txt", why
        if note.exists():
            failed = note.read_text()
        elif failed is None and size > options.mib * 2**20:
            failed = f"the file has {size >> 20} MiB"
        if failed is not None:
            for file in folder.iterdir():
                file.unlink()
        found = {"name": entry.name, "exporter": exporter, "failed": failed, "bytes": size}
        (folder / "export.json").write_text(json.dumps(found) + "\n")
        print(f"export {folder.name} {time.monotonic() - started:.0f} s: {failed or 'ok'}", flush=True)


def compare(folder: Path, options: argparse.Namespace) -> None:
    report = folder / "check.json"
    if report.exists() or not (folder / "export.json").exists() or not (folder / "net.onnx").exists():
        return
    started = time.monotonic()
    programs = check.Programs(options.program.resolve(), options.values.resolve())

    def write() -> None:
        found = check.check(folder, programs, options.engines.split(","))
        report.write_text(json.dumps(found, indent=1) + "\n")

    why = isolated.run(write, options.limit, options.folder / "check.log")
    if why is not None:
        report.write_text(json.dumps({"error": why}) + "\n")
    file = table.File.read(folder)
    if options.keep == "none" or (options.keep == "failed" and file.passed()):
        for each in [*folder.glob("net.onnx*"), *folder.glob("*.safetensors")]:
            each.unlink()
    verdict = "ok" if file.passed() else file.remark()
    print(f"check {folder.name} {time.monotonic() - started:.0f} s: {verdict[:700]}", flush=True)


if __name__ == "__main__":
    main()
