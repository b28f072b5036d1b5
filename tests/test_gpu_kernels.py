"""What can be known of GPUs without one: kernels compiled for them, and where each tensor of the net lies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")

from triton import compile as compile_kernel
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alexnet2012 import AlexNet, paper_recipe, source_recipe
from alexnet2012.data import Augmentations, normalize
from alexnet2012.evaluation.evaluate import softmax_outputs
from alexnet2012.network.build import InBfloat16
from alexnet2012.network.lrn import triton_kernel
from alexnet2012.network.lrn.eager import Formula
from alexnet2012.recipe import Recipe
from alexnet2012.training import optimizer_native, optimizer_triton

TOOLS = Path(nvidia.__file__).parent / "bin"
GENERATIONS = (70, 80, 90, 100, 120)
# That an H100 executes, a lane, in the time in which its 3.35 TB/s move a byte of the lane; ours, at 1.7 GHz.
INSTRUCTIONS_PER_BYTE = 273 / 32
PAPER = Formula(5, 1e-4, 0.75, 2.0, relu=True)
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}


class Recorder:
    """In the place of a kernel: keeps the arguments of its launch."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self.launch

    def launch(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options

    def compiled(self, generation: int) -> Any:
        """As Triton specialises it for a launch with these arguments."""
        signature, constants, attributes = {}, {}, {}
        for index, (parameter, value) in enumerate(zip(self.kernel.params, self.arguments, strict=True)):
            if isinstance(value, torch.Tensor):
                signature[parameter.name] = TYPES[value.dtype]
            elif parameter.is_constexpr or value is None or value == 1:
                signature[parameter.name], constants[(index,)] = "constexpr", value
            else:
                signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
            aligned = isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0)
            if aligned and (index,) not in constants:
                attributes[(index,)] = [["tt.divisibility", 16]]
        source = ASTSource(self.kernel, signature, constants, attributes)
        return compile_kernel(source, target=GPUTarget("cuda", generation, 32), options=self.options)


def lrn(direction: str, dtype: torch.dtype) -> tuple[Recorder, int]:
    """A launch on the paper's shapes, channels-last; and the bytes that a lane has to move."""
    recorder = Recorder(getattr(triton_kernel, f"_{direction}"))
    tensors = [torch.empty(55 * 55, 48, 1, dtype=dtype) for _ in range(2 if direction == "forward" else 3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_kernel, f"_{direction}", recorder)
        getattr(triton_kernel, direction)(*tensors, PAPER)
    channels = 16 // dtype.itemsize
    return recorder, len(tensors) * channels * dtype.itemsize


def update(dtype: torch.dtype) -> tuple[Recorder, int]:
    """An update of one weight, with a copy in bfloat16 where gradients are in it."""
    recorder, weight = Recorder(optimizer_triton._update), torch.empty(4096)
    weight.grad_dtype = dtype
    weight.grad = torch.empty(4096, dtype=dtype)
    copy = torch.empty(4096, dtype=dtype) if dtype == torch.bfloat16 else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer_triton, "_update", recorder)
        optimizer_triton.update(weight, torch.empty(4096), copy, (0.9, 5e-6, 0.01), torch.zeros(()))
    return recorder, 20 * 8


def tool_output(cubin: Path, flag: str) -> str:
    environment = {**os.environ, "PATH": f"{TOOLS}:{os.environ['PATH']}"}
    return subprocess.run(
        [TOOLS / "cuobjdump", flag, cubin], capture_output=True, text=True, check=True, env=environment
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    "kernel", [partial(lrn, "forward"), partial(lrn, "backward"), update], ids=["forward", "backward", "update"]
)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_memory_is_the_limit(generation: int, kernel: Callable[..., Any], dtype: torch.dtype, tmp_path):
    """No spills, 128 bits a load and store of a lane's own values, and fewer instructions than their bytes take."""
    recorder, moved = kernel(dtype)
    compiled = recorder.compiled(generation)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    assert "STACK:0" in tool_output(cubin, "-res-usage") and "LOCAL:0" in tool_output(cubin, "-res-usage")
    assert "ld.global.v4.b32" in compiled.asm["ptx"] and "st.global.v4.b32" in compiled.asm["ptx"]
    if generation < 80:
        return  # these tools compile for Volta, but do not disassemble it
    code = tool_output(cubin, "-sass")
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z0-9.]+)", code, re.MULTILINE)
    last = max(index for index, name in enumerate(instructions) if name.startswith("EXIT"))
    assert 20 < last < INSTRUCTIONS_PER_BYTE * moved
    assert not [name for name in instructions if name.startswith(("LDL", "STL"))]
    wide = [name for name in instructions if name.startswith(("LDG", "STG")) and name.endswith(".128")]
    assert len(wide) >= moved // 16


UPDATE = """
import torch
from alexnet2012.training import optimizer_native, optimizer_triton

assert optimizer_native.library()
for dtype in (torch.float32, torch.bfloat16):
    for skip in (None, 0.0, 1.0):
        results, drawn, gradient = [], torch.randn(2, 1500), torch.randn(1500).to(dtype)
        for update in (optimizer_native.update, optimizer_triton.update):
            weight, velocity = drawn.clone()
            weight.grad_dtype, weight.grad = dtype, gradient
            copy = torch.zeros(1500, dtype=torch.bfloat16) if dtype == torch.bfloat16 else None
            update(weight, velocity, copy, (0.9, 5e-6, 0.01), None if skip is None else torch.tensor(skip))
            results.append([weight, velocity, *([copy.float()] if copy is not None else [])])
        changed = [not torch.equal(weight, drawn[0]) for weight, *_ in results]
        assert changed == [not skip] * 2
        torch.testing.assert_close(*results, rtol=1e-6 if copy is None else 1e-2, atol=1e-6)
"""


def test_the_update_in_its_interpreter() -> None:
    if not optimizer_native.library():
        pytest.skip("no C++ compiler")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", UPDATE], env=environment, check=True)


@pytest.mark.parametrize("bfloat16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("recipe", [paper_recipe, source_recipe])
def test_on_two_gpus_every_tensor_is_where_it_belongs(recipe: Callable[..., Recipe], bfloat16: bool) -> None:
    """A training forward of both towers, from uint8 crops on, and an evaluation: torch follows shapes and devices."""
    with torch.device("meta"):
        net = AlexNet(recipe(width=1 / 16), 5)
    augmentations = Augmentations(
        *np.zeros((3, 4), int), np.ones(4, bool), np.ones((4, 3), np.float32), np.zeros((4, 4), int), 1.1
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        for index, tower in enumerate(net.held):
            own = torch.device("cuda", index)
            for layer in tower.children():
                for name, weight in list(layer.named_parameters(recurse=False)):
                    setattr(layer, name, torch.nn.Parameter(torch.empty_like(weight, device=own)))
            tower.register_forward_hook(partial(assert_stays_on, own))
        mean = torch.empty(2, 256, 256, 3, device="cuda:0")
        images = normalize(
            torch.empty(4, 224, 224, 3, dtype=torch.uint8, device="cuda:0"), augmentations, mean, net.recipe
        )
        for step in (3, torch.zeros((), dtype=torch.int64, device="cuda:0")):
            computing = InBfloat16(net) if bfloat16 else net
            logits, features = computing(images, step, return_features=True)
            assert {x.device for x in (logits, *features.values())} == {torch.device("cuda:0")}
            assert logits.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
        crops = torch.empty(4, 256, 256, 3, dtype=torch.uint8, device="cuda:0")
        outputs = softmax_outputs(net.eval(), crops, mean, 10)
        assert outputs.device == torch.device("cuda:0") and outputs.shape == (2, 4, 5)


def assert_stays_on(own: torch.device, tower: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    """A layer of ``tower`` reads and writes on its device."""
    assert inputs[1].device == output.device == own
