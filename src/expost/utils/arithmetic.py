"""Names of the arithmetic that networks may compute in; `precision` chooses one."""

from typing import Literal

#: Arithmetic of networks.
Arithmetic = Literal["float32", "bf16"]
#: The user's choice: auto is bf16 where the device has instructions for it, else float32.
Precision = Literal["auto", "float32", "bf16"]
