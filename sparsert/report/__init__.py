"""Building blocks of reports: documents, the machine, storage, and races of engines."""

from sparsert.report.document import Document
from sparsert.report.machine import Machine, describe_machine
from sparsert.report.race import Effort, Entrant, Result, precision_entrants, race, race_table
from sparsert.report.storage import encoding_table, tensor_table

__all__ = [
    "Document",
    "Effort",
    "Entrant",
    "Machine",
    "Result",
    "describe_machine",
    "encoding_table",
    "precision_entrants",
    "race",
    "race_table",
    "tensor_table",
]
