"""Python's torch for the peers: the very libtorch_cpu.so that Lockstep is linked with, from scripts/setup's folder.

What `import torch` wants besides comes in two parts. Pure Python packages: installed by pip, pinned by hash, into a
folder of their own. CUDA's libraries: the wheel on PyPI is the CUDA build, and its Python part loads them also where
no GPU is. Where scripts/setup --cuda has put them beside it they are used; otherwise stand-ins are made with the C
compiler, libraries of the same names in which every function returns an error, so that a machine without a GPU need
not download 4 GB for code that is never called. No result depends on them: the CPU kernels, gloo, DDP and the
optimizers are the wheel's own.
"""

import hashlib
import os
import pathlib
import subprocess
import sys

from harness import ROOT, CannotMeasure

PYTHON = "/usr/bin/python3"  # The one scripts/setup chose the wheel for.
REQUIREMENTS = ROOT / "tests/bench/peers/requirements.txt"
MODEL_REQUIREMENTS = ROOT / "tests/bench/peers/models-requirements.txt"
TRY = ("import platform, torch, torch.distributed; from torch.nn.parallel import DistributedDataParallel; "
       "print(torch.__version__, platform.python_version())")


class TorchPython:
    def __init__(self, environment, stand_ins):
        self.command = [PYTHON]
        self.environment = environment
        self.stand_ins = stand_ins
        self.version = ""

    def describe(self):
        torch, python = self.version.split()
        return f"torch {torch}, Python {python}, CUDA's libraries {'stand-ins' if self.stand_ins else 'as installed'}"


def cache_folder():
    if os.environ.get("LOCKSTEP_CACHE"):
        return pathlib.Path(os.environ["LOCKSTEP_CACHE"])
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lockstep"


def torch_folder():
    remembered = ROOT / "build/libtorch-dir"
    folder = pathlib.Path(remembered.read_text().strip()) if remembered.exists() else cache_folder() / "libtorch-2.11.0"
    if not (folder / "torch/__init__.py").exists():
        raise CannotMeasure(f"{folder} holds no Python torch (scripts/setup installs one)")
    return folder


def prepare():
    """Installs what is missing; CannotMeasure with the reason where that fails."""
    folder = torch_folder()
    packages = install_packages()
    environment = dict(os.environ, PYTHONPATH=f"{folder}{os.pathsep}{packages}", PYTHONDONTWRITEBYTECODE="1",
                       OMP_NUM_THREADS="1", TORCH_CPP_LOG_LEVEL="ERROR", PYTHONWARNINGS="ignore",
                       TORCHINDUCTOR_CACHE_DIR=str(cache_folder() / "bench-python/inductor"))
    python = TorchPython(environment, stand_ins=False)
    problem = attempt(python)
    if problem and ".so" in problem:
        environment["LD_LIBRARY_PATH"] = str(stand_ins(folder))
        python.stand_ins = True
        problem = attempt(python)
    if problem:
        raise CannotMeasure(f"import torch: {problem}")
    return python


def attempt(python):
    done = subprocess.run([*python.command, "-c", TRY], env=python.environment, capture_output=True, text=True,
                          timeout=300)
    python.version = done.stdout.strip()
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no output"])[-1]


def prepare_models():
    """The same with torchvision, ONNX Runtime and safetensors beside it."""
    return with_packages(prepare(), MODEL_REQUIREMENTS)


def with_packages(python, requirements):
    """The same Python, with the packages of another requirements file, too."""
    environment = dict(python.environment)
    environment["PYTHONPATH"] += f"{os.pathsep}{install_packages(requirements)}"
    more = TorchPython(environment, python.stand_ins)
    more.version = python.version
    return more


def install_packages(requirements=REQUIREMENTS):
    """The folder with the packages of this requirements file; made when missing."""
    name = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    target = cache_folder() / "bench-python" / name
    if target.exists():
        return target
    print(f"bench: installing the packages of {requirements.name} into {target}", file=sys.stderr, flush=True)
    stage = target.with_name(f"{name}.part-{os.getpid()}")
    done = subprocess.run(
        [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes",
         "--no-compile", "--target", str(stage), "-r", str(requirements)],
        env=dict(os.environ, PIP_ROOT_USER_ACTION="ignore", PIP_DISABLE_PIP_VERSION_CHECK="1"), capture_output=True,
        text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"pip could not install {requirements.name}: {done.stderr.strip().splitlines()[-1:]}")
    try:
        stage.rename(target)
    except OSError:  # Another bench was faster.
        pass
    return target


def elf(library, *options):
    return subprocess.run(["readelf", "--wide", *options, str(library)], capture_output=True, text=True,
                          check=True).stdout.splitlines()


def needed(library):
    return [line.split("[")[1].rstrip("]") for line in elf(library, "--dynamic") if "(NEEDED)" in line]


def undefined(library):
    """(name, version or "") of every function that `library` expects of others."""
    names = set()
    for line in elf(library, "--dyn-syms"):
        fields = line.split()
        if len(fields) >= 8 and fields[6] == "UND" and fields[4] == "GLOBAL":
            name, _, version = fields[7].partition("@")
            names.add((name, version))
    return names


def asked_versions(library):
    """{version: the file it is asked of}."""
    versions, file = {}, ""
    for line in elf(library, "--version-info"):
        fields = line.split()
        if "File:" in fields:
            file = fields[fields.index("File:") + 1]
        elif "Name:" in fields and "Flags:" in fields and file:
            versions[fields[fields.index("Name:") + 1]] = file
    return versions


def stand_ins(folder):
    """A folder of libraries with the names that are missing; every function in them returns 999."""
    libraries = sorted((folder / "torch/lib").glob("*.so*"))
    present = {path.name for path in [*libraries, *folder.glob("nvidia/**/lib/*.so*")]}
    asked = {name for library in libraries for name in needed(library)}
    prefixes = ("libcu", "libnccl", "libnv")
    # Not libcuda: that is the driver's, and is only asked for once there is a GPU.
    missing = sorted(name for name in asked - present if name.startswith(prefixes) and name != "libcuda.so.1")
    if not missing:
        raise CannotMeasure("CUDA's libraries are there, but do not load")
    key = hashlib.sha256("".join(missing).encode() + pathlib.Path(__file__).read_bytes()).hexdigest()[:12]
    target = cache_folder() / "bench-python" / f"stand-ins-{key}"
    if target.exists():
        return target
    file_of = {version: file for library in libraries for version, file in asked_versions(library).items()}
    starts = ("cublas", "cudnn", "cufft", "cuFile", "curand", "cusolver", "cusparse", "nccl", "pnccl", "nvshmem", "nvrtc",
              "nvJitLink")
    contents = {name: {} for name in missing}  # {library: {version: names}}
    for name, version in sorted({pair for library in libraries for pair in undefined(library)}):
        file = file_of.get(version, missing[0]) if version else missing[0]
        # Names without a version are found in whichever library has them.
        if file in contents and (version or name.startswith(starts)):
            contents[file].setdefault(version, []).append(name)
    stage = target.with_name(f"{target.name}.part-{os.getpid()}")
    stage.mkdir(parents=True)
    for library, versions in contents.items():
        link(stage, library, versions)
    try:
        stage.rename(target)
    except OSError:
        pass
    return target


def link(stage, library, versions):
    """One body under all names: 999 is no success in any of these libraries."""
    names = [name for group in versions.values() for name in group]
    source = ".text\n" + "".join(f".globl {name}\n.type {name}, @function\n{name}:\n" for name in names)
    source += 'movl $999, %eax\nret\n.section .note.GNU-stack,"",@progbits\n'
    (stage / "source.s").write_text(source)
    script = [f"{version} {{ global: {'; '.join(group)}; }};" for version, group in versions.items() if version]
    (stage / "versions").write_text("\n".join(script) + "\n")
    command = ["cc", "-shared", "-nostdlib", f"-Wl,-soname,{library}", "-o", str(stage / library), str(stage / "source.s")]
    if script:
        command.append(f"-Wl,--version-script={stage / 'versions'}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotMeasure(f"the C compiler made no stand-in for {library}: {done.stderr.strip()[-300:]}")
