"""Recomputes scores from PNGs with ONNX Runtime.

    python tests/verify/verify.py --server http://127.0.0.1:8080 --job ID --onnx FILE.onnx

takes the stimuli of a job from a server, and

    python tests/verify/verify.py --result RESULT.json --model MODEL.json --onnx FILE.onnx

those of `proxygrad maximize --json`, with what `proxygrad models show --json` says. The exit status is 1 when a score
differs by more than 1e-3 of its size.
"""

import argparse
import hashlib
import io
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import objective
from network import Network

TOLERANCE = 1e-3
# Scores below this size are compared by their difference: a sum that cancels has no digits left to compare.
SMALL = 1e-3
REQUEST_SECONDS = 60.0


@dataclass(frozen=True)
class Stimulus:
    """A PNG and what was said about it."""

    model: str
    digest: str
    preprocessing: dict[str, Any]
    units: list[objective.Unit]
    score: float | None
    png: bytes
    # PNGs of the images that units compare with, by their SHA-256.
    images: dict[str, bytes]


@dataclass(frozen=True)
class Row:
    stimulus: str
    reported: float | None
    recomputed: float

    @property
    def difference(self) -> float:
        """Relative to the larger of both; a score that is null was not finite."""
        if self.reported is None:
            return math.inf if math.isfinite(self.recomputed) else 0.0
        size = max(abs(self.reported), abs(self.recomputed), SMALL)
        difference = abs(self.reported - self.recomputed) / size
        return difference if math.isfinite(difference) else math.inf


def get(server: str, path: str) -> bytes:
    url = urllib.parse.urljoin(server, path)
    try:
        with urllib.request.urlopen(url, timeout=REQUEST_SECONDS) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.code} {error.read().decode(errors='replace')}") from None
    except urllib.error.URLError as error:
        raise SystemExit(f"{url}: {error.reason}") from None


def finished_job(server: str, job: str, seconds: float) -> dict[str, Any]:
    """The job, once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        document: dict[str, Any] = json.loads(get(server, f"/v1/jobs/{job}"))
        if document["state"] == "succeeded":
            return document
        if document["state"] not in ("queued", "running"):
            raise SystemExit(f"job {job} {document['state']}: {document['problem']}")
        if time.monotonic() > deadline:
            raise SystemExit(f"job {job} is still {document['state']} after {seconds:g} s: {document['progress']}")
        time.sleep(1)


def stimuli_of_job(server: str, job: str, seconds: float) -> Iterator[Stimulus]:
    document = finished_job(server, job, seconds)
    model = json.loads(get(server, f"/v1/models/{document['model']}"))
    for each in document["stimuli"]:
        png = get(server, each["png"])
        if hashlib.sha256(png).hexdigest() != each["sha256"]:
            raise SystemExit(f"{each['png']} does not have the SHA-256 in the job")
        known = {sha256: get(server, f"/v1/jobs/{job}/images/{sha256}") for sha256 in objective.images(each["objective"])}
        yield stimulus(document, each, model, png, known)


def stimuli_of_result(path: Path, models: list[dict[str, Any]], images: dict[str, bytes]) -> Iterator[Stimulus]:
    document = json.loads(path.read_text())
    model = next((each for each in models if each["id"] == document["model"]), None)
    if model is None:
        raise SystemExit(f"{path} needs --model with the output of `proxygrad models show {document['model']} --json`")
    for each in document["stimuli"]:
        wanted = objective.images(each["objective"])
        if missing := wanted - images.keys():
            raise SystemExit(f"{path} needs --image {min(missing)}=FILE, a PNG of the stimulus' size")
        known = {sha256: images[sha256] for sha256 in wanted}
        yield stimulus(document, each, model, Path(each["file"]).read_bytes(), known)


def stimulus(
    run: dict[str, Any], found: dict[str, Any], model: dict[str, Any], png: bytes, images: dict[str, bytes]
) -> Stimulus:
    units = objective.parse(found["objective"])
    return Stimulus(run["model"], run["model_digest"], model["preprocessing"], units, found["score"], png, images)


def network_input(png: bytes, preprocessing: dict[str, Any]) -> np.ndarray:
    """The image `[C,H,W]` as the network reads it: (level * range / 255 - mean) / std, channels in its order."""
    order = preprocessing["channels"]
    with Image.open(io.BytesIO(png)) as image:
        expected = "L" if order == "grey" else "RGB"
        # An alpha channel ("RGBA", "LA") does not change the colours.
        if image.format != "PNG" or image.mode not in (expected, expected + "A"):
            raise SystemExit(f"expected a PNG of mode {expected}, found {image.format} of mode {image.mode}")
        levels = np.asarray(image.convert(expected), np.float64)
    maps = levels[None] if order == "grey" else levels.transpose(2, 0, 1)
    if order == "bgr":
        maps = maps[::-1]
    mean, std = (np.array(preprocessing[name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    return ((maps * preprocessing["range"] / 255 - mean) / std).astype(np.float32)


def checked(each: Stimulus, networks: dict[str, Network]) -> Row:
    network = networks.get(each.digest)
    if network is None:
        raise SystemExit(f"no --onnx file belongs to {each.model}, whose digest is {each.digest}")
    layers = {unit.layer for unit in each.units}

    def outputs(png: bytes) -> dict[str, np.ndarray]:
        return network.run(layers, network_input(png, each.preprocessing))

    images = {sha256: outputs(png) for sha256, png in each.images.items()}
    recomputed = objective.value(each.units, outputs(each.png), images)
    return Row(f"{each.model} {objective.text(each.units)}", each.score, recomputed)


def table(rows: list[Row]) -> Iterator[str]:
    width = max(len("stimulus"), *(len(row.stimulus) for row in rows))
    yield f"{'stimulus':{width}}  {'reported':>12}  {'recomputed':>12}  {'difference':>10}"
    for row in rows:
        reported = "null" if row.reported is None else f"{row.reported:.6g}"
        verdict = "" if row.difference <= TOLERANCE else "  DIFFERS"
        yield f"{row.stimulus:{width}}  {reported:>12}  {row.recomputed:>12.6g}  {row.difference:>10.1e}{verdict}"


def named_image(text: str) -> tuple[str, bytes]:
    """An image that a result names by the digest of the program's own PNG of it."""
    sha256, _, file = text.partition("=")
    return sha256, Path(file).read_bytes()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Recomputes scores from PNGs with ONNX Runtime.")
    parser.add_argument("--server", default="http://127.0.0.1:8080", metavar="URL", help="default: %(default)s")
    parser.add_argument("--job", nargs="+", default=[], metavar="ID", help="jobs of that server; waits for their end")
    parser.add_argument("--wait", type=float, default=600, metavar="SECONDS", help="longest wait (default: 600)")
    parser.add_argument("--result", nargs="+", default=[], type=Path, metavar="FILE", help="from maximize --json")
    parser.add_argument("--model", nargs="+", default=[], type=Path, metavar="FILE", help="from models show --json")
    parser.add_argument(
        "--image", nargs="+", default=[], type=named_image, metavar="SHA256=FILE", help="images that results name"
    )
    parser.add_argument("--onnx", nargs="+", required=True, type=Path, metavar="FILE", help="the networks")
    chosen = parser.parse_args()
    if not chosen.job and not chosen.result:
        parser.error("nothing to verify: give --job or --result")
    return chosen


def main() -> None:
    chosen = arguments()
    networks = {digest: network for network in map(Network, chosen.onnx) for digest in network.digests}
    models = [json.loads(path.read_text()) for path in chosen.model]
    stimuli: list[Stimulus] = []
    for job in chosen.job:
        stimuli += stimuli_of_job(chosen.server, job, chosen.wait)
    for result in chosen.result:
        stimuli += stimuli_of_result(result, models, dict(chosen.image))
    rows = [checked(each, networks) for each in stimuli]
    print("\n".join(table(rows)))
    if any(row.difference > TOLERANCE for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
