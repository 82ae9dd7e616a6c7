"""An extension of PyTorch that nvcc compiles in seconds. As flash-attn 1 does, it names its archs itself and looks at no variable."""

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

ARCHS = ["-gencode", "arch=compute_75,code=sm_75", "-gencode", "arch=compute_80,code=sm_80"]
setup(
    name="small-cuda",
    version="0.1.0",
    ext_modules=[CUDAExtension("small_cuda", ["module.cpp", "scale.cu", "shift.cu"], extra_compile_args={"cxx": [], "nvcc": ARCHS})],
    cmdclass={"build_ext": BuildExtension},
)
