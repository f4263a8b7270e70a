"""Parts of rivals.py: what is compared, who takes part, how images are scored and shown."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The scripts that verify the program's scores read ONNX files and units; here they score everybody.
VERIFY = ROOT / "tests" / "verify"
sys.path.append(str(VERIFY))
