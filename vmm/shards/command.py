"""``vmm shards make`` and ``inspect``: shards of a data set's files, and a look into them.

    vmm shards make msrvtt_ret_train9k.json videos/ -o shards/msrvtt-train
    vmm shards make imagenet/train imagenet/train --dataset class-folders -o shards/imagenet-train
    vmm shards inspect 'data/demo/train-*.tar' -o inspected

Of a data set whose annotations name classes, ``classes.txt`` beside the shards lists them.
What is written, and what a stopped run leaves, is in ``vmm.shards.making`` and ``inspection``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vmm.command_line import CommandParser, run_to_status, whole
from vmm.data.annotations.class_folders import class_names
from vmm.data.annotations.dataset import inside
from vmm.data.annotations.folders import FOLDERS
from vmm.data.annotations.record import Annotation
from vmm.data.annotations.registry import DATASETS, read_annotations
from vmm.recipe_files import here_or_packaged
