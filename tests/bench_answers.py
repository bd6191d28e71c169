"""Tokens per second and joules of real answers with measurement and without (`make bench PART=answers`)."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, Popen
import sys

from bench_gateways import CLOCK
from bench_page import Part, Row, table
from costs import DEFAULT, QUESTIONS, RATIO_MIN, TOKENS, Answered, answer, fetch
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.models import Registry
from joulebox.rig.serve import truth_of
from joulebox.statistics import Interval, ratio_interval

PAIRS = 20
