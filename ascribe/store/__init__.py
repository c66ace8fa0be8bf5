"""What workers keep on disk between jobs: entries under content keys, shared by every process on the folder."""

from ascribe.store.files import Damaged, Files, storage_errors
from ascribe.store.store import Entry, Store

__all__ = ["Damaged", "Entry", "Files", "Store", "storage_errors"]
