"""Local training, with privacy and without.

The two differ in everything that matters to a patient, so they are two modules that share a
workbench rather than one with a switch.
"""

from client.training.job import Trained, TrainingJob
from client.training.plain import train_plain
from client.training.private import PrivateStep, train_private

__all__ = ["PrivateStep", "Trained", "TrainingJob", "train_plain", "train_private"]
