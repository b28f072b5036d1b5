"""LRN against a plain loop over the paper's formula, on every kernel this machine has."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alexnet2012.network.lrn import layer, native
from alexnet2012.network.lrn.layer import (
    InMapResponseNorm,
    LocalResponseNorm,
    local_response_norm,
    lrn_kernel,
    use_lrn_kernel,
)

on_cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(params=["cpu eager", "cpu fast", pytest.param("cuda fast", marks=on_cuda)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device with each of its kernels chosen."""
    device, choice = request.param.split()
    use_lrn_kernel(choice)
    if choice == "fast" and lrn_kernel(device).startswith("eager"):
        pytest.skip(f"{lrn_kernel(device)} is all there is")
    yield device
    use_lrn_kernel("fast")


def reference(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Tensor:
    """P §3.3, channel by channel, in float64."""
    x, half = x.double(), size // 2
    scales = [
        k + alpha * sum(x[:, j] ** 2 for j in range(max(0, i - half), min(x.shape[1] - 1, i + half) + 1))
        for i in range(x.shape[1])
    ]
    return x / torch.stack(scales, 1) ** beta


def draw(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu", scale: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(device, dtype)


def normalized_with_gradient(function, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    out = function(x)
    return out.detach(), torch.autograd.grad(out, x, torch.sin(x.detach()).to(out.dtype))[0]


def assert_matches_reference(x: Tensor, rtol: float, **constants) -> None:
    out, gradient = normalized_with_gradient(lambda x: local_response_norm(x, **constants), x)
    expected, expected_gradient = normalized_with_gradient(lambda x: reference(x, **constants), x.double())
    assert out.dtype == gradient.dtype == x.dtype
    for found, wanted in ((out, expected), (gradient, expected_gradient)):
        torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=rtol * wanted.abs().max().item())


@pytest.mark.parametrize(
    ("dtype", "rtol"),
    [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2)],  # ~ each one's eps
    ids=str,
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 48, 19, 17), (3, 7, 5, 5), (2, 3, 4, 4), (1, 1, 3, 3)], ids=str)
def test_values_and_gradient_are_the_papers(device, shape, channels_last, dtype, rtol):
    x = draw(*shape, dtype=dtype, device=device)
    assert_matches_reference(x.to(memory_format=torch.channels_last) if channels_last else x, rtol)


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("shape", [(4, 9), (2, 4, 6), (2, 6, 3, 2), (2, 3, 2, 2, 2)], ids=str)
def test_sizes_powers_and_dimensions(device, shape, size, beta):
    assert_matches_reference(
        draw(*shape, dtype=torch.float64, device=device), 1e-12, size=size, alpha=0.01, beta=beta, k=1.5
    )


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [1, 3, 5, 9, 17])
@pytest.mark.parametrize("shape", [(2, 2, 9, 7), (1, 12, 3, 3), (2, 34, 7, 5), (1, 48, 5, 8)], ids=str)
def test_no_window_reaches_beyond_its_pixel(device, shape, size, channels_last):
    """A C++ block of 16 to 32 values holds several pixels, or a part of one; bfloat16 is rounded once."""
    x = draw(*shape, device=device).bfloat16()
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    assert_matches_reference(x.float(), 1e-6, size=size)
    out, gradient = normalized_with_gradient(lambda x: local_response_norm(x, size), x)
    wide = x.float().requires_grad_()
    expected = local_response_norm(wide, size)
    (expected_gradient,) = torch.autograd.grad(expected, wide, torch.sin(x).float())
    assert torch.equal(out, expected.bfloat16()) and torch.equal(gradient, expected_gradient.bfloat16())


def test_bfloat16_is_not_converted(monkeypatch):
    """The C++ kernel reads and writes it."""
    if lrn_kernel("cpu") != "inline C++":
        pytest.skip(lrn_kernel("cpu"))
    monkeypatch.setattr(Tensor, "float", lambda x: pytest.fail("a pass over memory for nothing"))
    normalized_with_gradient(LocalResponseNorm(), torch.ones(1, 4, 3, 3, dtype=torch.bfloat16))


def test_more_pixels_and_rows_than_a_block(device):
    """Eager blocks are cut after 128 Ki values: the seams must not show."""
    x = draw(4, 48, 31, 29, device=device)
    assert_matches_reference(x, 1e-6)
    assert_matches_reference(x.to(memory_format=torch.channels_last), 1e-6)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_relu_in_the_same_pass_is_relu_before_it(device, dtype, beta, channels_last):
    x = draw(3, 12, 21, 19, dtype=dtype, device=device)
    x[0, 2, 3] = 0.0
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    lrn = LocalResponseNorm(beta=beta)
    fused = normalized_with_gradient(lambda x: lrn(x, relu=True), x)
    for found, expected in zip(fused, normalized_with_gradient(lambda x: lrn(torch.relu(x)), x), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_relu_in_the_same_pass_hides_no_nan(device):
    """A net that diverged is stopped by its loss: nan must come through."""
    x = draw(2, 12, 5, 5, device=device)
    x[0, 6, 1, 1] = torch.nan
    for found in normalized_with_gradient(lambda x: LocalResponseNorm()(x, relu=True), x):
        assert found[0, 4:9, 1, 1].isnan().any() and not found[1].isnan().any()


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("shape", [(3, 6), (2, 4, 3), (1, 5, 2, 2)], ids=str)
def test_gradcheck(device, shape, size):
    x = draw(*shape, dtype=torch.float64, device=device, scale=3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: local_response_norm(x, size, 0.1, 0.75, 2.0), x)
    assert torch.autograd.gradcheck(lambda x: local_response_norm(x, size, 0.1, 0.6, 1.0), x)


def test_is_torchs_norm_with_alpha_times_five(device):
    x = draw(2, 16, 6, 6, device=device)
    torch_norm = torch.nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)
    torch.testing.assert_close(LocalResponseNorm()(x), torch_norm(x), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_float16_does_not_overflow(device, channels_last):
    """Squares of 200, and of 60000, are beyond float16."""
    x = torch.full((2, 8, 3, 3), 200.0, dtype=torch.float16, device=device)
    x[1] = 60000.0
    assert_matches_reference(x.to(memory_format=torch.channels_last) if channels_last else x, 1e-3)


def test_memory_format_is_kept(device):
    x = draw(2, 6, 5, 4, device=device)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        out, gradient = normalized_with_gradient(LocalResponseNorm(), x.contiguous(memory_format=memory_format))
        assert out.is_contiguous(memory_format=memory_format) and gradient.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, 1:6],
        lambda x: x[..., ::2],
        lambda x: x.transpose(2, 3),
        lambda x: x.transpose(0, 1),
        lambda x: x[:, :, :1].expand(-1, -1, 7, -1),
        lambda x: x.to(memory_format=torch.channels_last)[:, 2:],
    ],
    ids=["channels", "strided", "transposed", "batch-second", "expanded", "channels-of-channels_last"],
)
def test_views_need_not_be_dense(device, view):
    assert_matches_reference(view(draw(3, 8, 7, 6, device=device)), 1e-6)


def test_gradient_of_another_memory_format(device):
    x = draw(2, 6, 5, 4, device=device).requires_grad_()
    grad = draw(2, 6, 5, 4, device=device).add(1)
    (expected,) = torch.autograd.grad(LocalResponseNorm()(x), x, grad)
    for other in (grad.to(memory_format=torch.channels_last), grad.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.testing.assert_close(torch.autograd.grad(LocalResponseNorm()(x), x, other)[0], expected, rtol=0, atol=0)
    total = torch.autograd.grad(LocalResponseNorm()(x).sum(), x)[0]  # its gradient is an expanded scalar
    torch.testing.assert_close(total, torch.autograd.grad(LocalResponseNorm()(x), x, torch.ones_like(x))[0])


@pytest.mark.parametrize("shape", [(0, 48, 5, 5), (2, 0, 5, 5), (2, 48, 0, 5), (0, 3)], ids=str)
def test_empty(device, shape):
    out, gradient = normalized_with_gradient(LocalResponseNorm(), draw(*shape, device=device))
    assert out.shape == gradient.shape == shape


def test_repeats_to_the_last_bit(device):
    x = draw(3, 48, 21, 21, device=device)
    first, second = (normalized_with_gradient(LocalResponseNorm(), x) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_number_of_threads_does_not_matter(device):
    x, threads = draw(3, 48, 21, 21, device=device), torch.get_num_threads()
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        results.append(normalized_with_gradient(LocalResponseNorm(), x))
    torch.set_num_threads(threads)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of opcheck's own making
def test_registered_with_torch(device):
    """Schema, fake tensors, autograd and torch.compile's tracing agree with what the operator does."""
    for x in (draw(2, 6, 5, 4, device=device), draw(2, 6, 5, 4, device=device).to(memory_format=torch.channels_last)):
        torch.library.opcheck(layer._forward, (x.requires_grad_(), 5, 1e-4, 0.75, 2.0, True))


def test_torch_compile_goes_through(device):
    compiled = torch.compile(LocalResponseNorm(), backend="aot_eager", fullgraph=True)
    x = draw(2, 6, 5, 4, device=device)
    for found, wanted in zip(
        normalized_with_gradient(compiled, x), normalized_with_gradient(LocalResponseNorm(), x), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_autocast_keeps_the_type(device):
    x = draw(2, 6, 5, 4, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert LocalResponseNorm()(x).dtype == torch.float32
        assert LocalResponseNorm()(x.bfloat16()).dtype == torch.bfloat16


def test_second_derivative_is_refused(device):
    x = draw(2, 6, dtype=torch.float64, device=device).requires_grad_()
    (gradient,) = torch.autograd.grad(LocalResponseNorm()(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="local_response_norm_backward"):
        gradient.sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # torch.func's own
def test_forward_mode_is_refused(device):
    x = draw(2, 6, device=device)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(LocalResponseNorm(), (x,), (x,))


TRITON_AGAINST_EAGER = """
import torch
from alexnet2012.network.lrn import eager, triton_kernel as triton

paper, other = eager.Formula(5, 1e-4, 0.75, 2.0), eager.Formula(7, 1e-3, 0.6, 1.0, relu=True)
after_relu = paper._replace(relu=True)
cases = (torch.float32, 1e-6, paper), (torch.bfloat16, 1e-2, after_relu), (torch.float64, 1e-13, other)
for shape in (1, 20, 5), (1, 3, 130), (70, 8, 1), (9, 24, 1), (9, 12, 1), (5, 3, 1):  # planes, vectors, neither
    for dtype, rtol, formula in cases:
        a, grad = (torch.randn(shape).mul(100).to(dtype) for _ in range(2))
        for function, inputs in (("forward", (a,)), ("backward", (a, grad))):
            out, expected = torch.full_like(a, torch.nan), torch.empty_like(a, dtype=torch.float64)
            getattr(triton, function)(*inputs, out, formula)
            getattr(eager, function)(*(tensor.double() for tensor in inputs), expected, formula)
            torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=rtol * expected.abs().max().item())
"""


def test_triton_kernels_in_its_interpreter():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-c", TRITON_AGAINST_EAGER], env=environment, check=True)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_eager_on_cuda():
    use_lrn_kernel("eager")
    assert_matches_reference(draw(4, 48, 31, 29, device="cuda"), 1e-6)
    use_lrn_kernel("fast")


def test_eager_and_fast_agree():
    if lrn_kernel("cpu") != "inline C++":
        pytest.skip(lrn_kernel("cpu"))
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = draw(4, 48, 23, 23).to(memory_format=memory_format)
        fast = normalized_with_gradient(LocalResponseNorm(), x)
        use_lrn_kernel("eager")
        eager = normalized_with_gradient(LocalResponseNorm(), x)
        use_lrn_kernel("fast")
        for a, b in zip(fast, eager, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * b.abs().max().item())


def test_kernels_are_named_and_chosen():
    use_lrn_kernel("eager")
    assert lrn_kernel("cpu") == lrn_kernel("cuda") == "eager"
    use_lrn_kernel("fast")
    assert lrn_kernel("cpu").startswith(("inline C++", "eager ("))
    with pytest.raises(ValueError, match="must be fast or eager"):
        use_lrn_kernel("quick")


@pytest.fixture
def first_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The state of a machine on which nothing has been built yet; the path is for a compiler, if one is wanted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = layer._fast_kernel, native.library
    for cache in caches:
        cache.cache_clear()
    yield tmp_path / "c++"
    for cache in caches:
        cache.cache_clear()


def test_without_a_compiler_the_name_says_so(first_use, monkeypatch):
    monkeypatch.setenv("CXX", str(first_use))
    assert lrn_kernel("cpu") == "eager (no C++ compiler)"
    assert_matches_reference(draw(2, 6, 4, 4), 1e-6)


def test_a_failed_build_says_so_in_one_line(first_use, monkeypatch):
    first_use.write_text("#!/bin/sh\necho error: this compiler is broken >&2\necho and talks much >&2\nexit 1\n")
    first_use.chmod(0o755)
    monkeypatch.setenv("CXX", str(first_use))
    with pytest.warns(UserWarning, match="this compiler is broken$"):
        assert lrn_kernel("cpu") == "eager (the C++ build failed)"
    assert_matches_reference(draw(2, 6, 4, 4), 1e-6)


def test_a_damaged_library_is_built_again(first_use, monkeypatch):
    monkeypatch.setenv("CXX", "c++ -DUNUSED")  # a compiler with flags of its own
    if lrn_kernel("cpu") != "inline C++":
        pytest.skip(lrn_kernel("cpu"))
    (library,) = (first_use.parent / "alexnet2012").iterdir()
    damaged = first_use.parent / "another" / "alexnet2012" / library.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(library.read_bytes()[:500])
    monkeypatch.setenv("XDG_CACHE_HOME", str(damaged.parents[1]))
    layer._fast_kernel.cache_clear()
    native.library.cache_clear()
    assert lrn_kernel("cpu") == "inline C++" and damaged.stat().st_size > 500


def test_several_may_build_at_once(first_use):
    with ThreadPoolExecutor(2) as pool:
        kernels = list(pool.map(lambda _: native.build(), range(2)))
    if None in kernels:
        pytest.skip("no C++ compiler")
    assert [kernel.name for kernel in kernels] == ["inline C++"] * 2
    assert len(list((first_use.parent / "alexnet2012").iterdir())) == 1


def test_bad_sizes_and_inputs_are_refused():
    for module in (LocalResponseNorm, InMapResponseNorm):
        for size in (4, 0, -1):
            with pytest.raises(ValueError, match="must be odd"):
                module(size, 1e-4, 0.75, 2.0)
    with pytest.raises(ValueError, match="must be odd"):
        local_response_norm(torch.ones(1, 4), 2)
    with pytest.raises(ValueError, match="floating point"):
        local_response_norm(torch.ones(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="floating point"):
        local_response_norm(torch.ones(4))


def test_nothing_to_save():
    assert not LocalResponseNorm().state_dict() and not InMapResponseNorm(5, 4e-5, 0.75, 1.0).state_dict()


def in_map_reference(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    x, half = x.double(), size // 2
    out = torch.empty_like(x)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            window = x[:, :, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
            out[:, :, row, column] = x[:, :, row, column] / (k + alpha * window.square().sum((2, 3))) ** beta
    return out


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.float16, 1e-3)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_in_map_norm(dtype, rtol, channels_last):
    x = draw(2, 3, 9, 7, dtype=dtype, scale=200.0)
    x = x.to(memory_format=torch.channels_last) if channels_last else x
    out = InMapResponseNorm(5, 0.001 / 25, 0.75, 1.0)(x)
    expected = in_map_reference(x, 5, 0.001 / 25, 0.75, 1.0)
    assert out.dtype == dtype and out.stride() == x.stride()
    torch.testing.assert_close(out.double(), expected, rtol=rtol, atol=rtol)


def test_in_map_norm_gradcheck():
    x = draw(1, 2, 4, 3, dtype=torch.float64, scale=3.0).requires_grad_()
    assert torch.autograd.gradcheck(InMapResponseNorm(3, 0.1, 0.75, 1.0), x)
