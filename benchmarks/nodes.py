"""Two nodes of one CPU beside one node of one CPU."""

from pathlib import Path

from benchmarks.archive import make_archive
from benchmarks.cleaning import catalogued, clean_job, loop_rate
from benchmarks.driving import fresh_copy, ray_nodes, run_file, steady_rate
from benchmarks.harness import Bar, Context, Figure, figure

IMAGES = 1536
SHARD_IMAGES = 64
"""Few, so that the end, when one process has nothing more to do, is short."""
BAR = Bar(1.8, "x", at_least=True)


def measure(context: Context) -> list[Figure]:
    """Images a second of cleaning beyond start-up, on a head without CPUs and one or two nodes."""
    count = context.count(IMAGES, least=SHARD_IMAGES * 6)
    archive = context.make(f"xrays-{count}", lambda folder: make_archive(folder, count))
    lake = _lake(context, archive)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(context.rounds):
        for nodes in (1, 2) if turn % 2 == 0 else (2, 1):
            copy = fresh_copy(lake, context.directory / "copy")
            with ray_nodes([0] + [1] * nodes) as address:
                _, marks = run_file(context.directory, copy, [clean_job(SHARD_IMAGES)], address)
            rates[nodes].append(steady_rate(marks.marks, nodes))
        context.say(f"one node {rates[1][-1]:.0f}, two {rates[2][-1]:.0f} images/s")
    paths = sorted(map(str, archive.iterdir()))
    bare = [loop_rate(paths, processes, SHARD_IMAGES) for processes in (1, 2)]
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return [
        figure(
            "two nodes / one node (clean)",
            BAR,
            ratios,
            images=count,
            one_node_images_per_s=rates[1],
            two_nodes_images_per_s=rates[2],
            bare_loop_two_processes_to_one=bare[1] / bare[0],
        )
    ]


def _lake(context: Context, archive: Path) -> Path:
    with ray_nodes([context.cores]) as address:
        return catalogued(context.directory, archive, address)
