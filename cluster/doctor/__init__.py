"""`rayward doctor`: what of the installation, the lake and this machine would make runs fail."""

from cluster.doctor.check import Check, State
from cluster.doctor.examination import examine

__all__ = ["Check", "State", "examine"]
