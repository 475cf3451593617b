"""How is measured: processes, what they cost, loads, the machine; and whether two runs agree."""
