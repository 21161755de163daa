"""The kernels compile for real GPUs, which the interpreter does not show. No GPU is needed."""

import subprocess
import sys

# In a process of its own: here other tests have made the kernels interpreted ones.
PROGRAM = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from diffgen.kernels.triton import attention, gate, guidance, norm

TARGET = GPUTarget("cuda", int(sys.argv[1]), 32)
POINTERS = {"x", "weight", "bias", "out", "shift", "q", "k", "v", "outputs"}
TYPES = dict.fromkeys(POINTERS, "*" + sys.argv[2])
TYPES |= {"moments": "*fp32", **dict.fromkeys(("eps", "scale", "keep", "gain"), "fp32")}


def build(kernel, **constants):
    names = {n: "constexpr" if n in constants else TYPES.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(kernel, signature=names, constexprs=constants)
    assert "cubin" in triton.compile(source, target=TARGET).asm


for shifted in (True, False):
    tile = {"SHIFTED": shifted, "WIDTH": 16, "ROWS": 128}
    build(norm._group_moments, **tile)
    build(norm._group_apply, **tile, PARTS=16)
build(norm._layer_norm, WIDTH=512)
build(guidance._guided, BLOCK=guidance.BLOCK)
build(gate._gated_gelu, BLOCK=gate.BLOCK)
for width in (64, 128, 256):
    rows, columns = attention.BLOCKS[width]
    tile = {"WIDTH": width, "QUERIES": rows, "KEYS": columns}
    build(attention._attention, **tile, WIDEN=False)
"""


def test_every_kernel_becomes_machine_code(tmp_path):
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, "90", "bf16"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
