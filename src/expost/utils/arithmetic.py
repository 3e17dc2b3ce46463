"""What networks may compute in, in words; `precision` says which it is."""

from typing import Literal

#: What networks compute in.
Arithmetic = Literal["float32", "bf16"]
#: What may be asked for: auto is bf16 where the device has instructions for it, else float32.
Precision = Literal["auto", "float32", "bf16"]
