"""Filling an index on the machines of a Ray cluster: one task per share of the videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from vmm.export.encoder import VideoTextEncoder
from vmm.search.encode import Counts, Share, encode_videos
from vmm.search.index import Index


def encode_on_ray(
    index: Path,
    encoder: str | Path,
    inputs: Sequence[Path],
    shares: int,
    *,
    batch_size: int = 8,
    progress: bool = False,
) -> Counts:
    """Do as ``encode_videos``, spread over a cluster, with a GPU per task if it has any.

    All machines must have vmm, and see the index, the encoder and the videos under the same paths.

    Args:
        index: Folder of an index that is there.
        encoder: As for ``VideoTextEncoder.from_pretrained``.
        inputs: See ``find_sources``.
        shares: Number of tasks.
        batch_size: Moments that are encoded at once.
        progress: Show a progress bar on stderr.

    Returns:
        What all tasks did together.

    Raises:
        ValueError: If Ray is not installed; as ``encode_videos``.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError('--ray needs Ray; `pip install "vmm-video[ray]"`') from error
    ray.init(ignore_reinit_error=True)
    paths = [path.absolute() for path in inputs]
    folder = index.absolute()

    def one(number: int) -> Counts:
        return encode_videos(
            Index.open(folder),
            VideoTextEncoder.from_pretrained(encoder),
            paths,
            share=Share(number, shares),
            batch_size=batch_size,
        )

    gpus = 1 if ray.cluster_resources().get("GPU") else 0  # type: ignore[no-untyped-call]
    task = ray.remote(num_gpus=gpus)(one)
    running = [task.remote(number) for number in range(shares)]
    total = Counts()
    with tqdm(total=shares, unit="share", disable=not progress) as bar:
        while running:
            (finished,), running = ray.wait(running)
            total += ray.get(finished)
            bar.update()
    return total
