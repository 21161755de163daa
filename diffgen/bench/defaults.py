"""What a sweep measures unless told otherwise; apart, so that `--help` loads nothing more."""

from typing import Final

SAMPLERS: Final = "ddim,dpmpp_2m,unipc"
SCHEDULES: Final = "default,karras,beta,ays"
STEPS: Final = "5,7,10,14,20"
