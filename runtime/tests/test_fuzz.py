"""Hostile bytes: 20,000 mutations of each kind of file, as they are and with right checksums, under sanitizers.

And whether that would find anything: checks are taken out of the readers, and the sanitizers must then report.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from library_sources import CSRC, REPOSITORY, SOURCES
from sample_artifact import HOST, product_variant, sample, unstarted, variant

from edgec.runtime import load
from edgec.runtime.abi import Arch
from edgec.runtime.layout import write_artifact
from edgec.runtime.library import Status
from edgec.runtime.tables import Section

FUZZ = REPOSITORY / "runtime/fuzz"
COMPILER = next(filter(shutil.which, ("clang-14", "clang", "gcc")))
# Without devices: what a driver at hand does with its memory is not ours to judge.
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-DEDGEC_DEVICES=0", "-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Werror"]
FLAGS += [f"-I{CSRC}", f"-I{FUZZ}"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUTATIONS = 20_000
KINDS = ("artifact", "checkpoint", "tensors")
needs_clang = pytest.mark.skipif("clang" not in COMPILER, reason="libFuzzer needs clang-14")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A good artifact, a good checkpoint, and the objects of the fuzzer."""
    folder = tmp_path_factory.mktemp("fuzz")
    variants = variant(HOST), variant(Arch.PORTABLE), product_variant(87)
    write_artifact(folder / "sample.edge", unstarted(sample(*variants)))
    with load(folder / "sample.edge", threads=1) as model:
        model.save_checkpoint(folder / "sample.edgeckpt", step=3, seed=4)
    subprocess.run([COMPILER, *FLAGS, *SANITIZERS, "-c", *SOURCES, *FUZZ.glob("*.c")], cwd=folder, check=True)
    return folder


def link(folder, name, **replaced):
    """The fuzzer; `replaced` are other sources of some of its objects."""
    objects = [path for path in folder.glob("*.o") if path.stem not in replaced]
    subprocess.run([COMPILER, *FLAGS, *SANITIZERS, *replaced.values(), *objects, "-o", folder / name], check=True)
    return folder / name


@pytest.fixture(scope="module")
def fuzzer(folder):
    return link(folder, "fuzzer")


def fuzz(fuzzer, kind, count, seed=1):
    folder = fuzzer.parent
    file = folder / ("sample.edge" if kind == "artifact" else "sample.edgeckpt")
    command = [fuzzer, kind, file, "0", str(count), str(seed), folder / "sample.edge"]
    environment = os.environ | {"ASAN_OPTIONS": "handle_abort=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def counts(output, word):
    """{number: times} of the lines that begin with `word`."""
    return {int(n): int(times) for n, times in re.findall(rf"^{word} (\d+) (\d+)$", output, re.MULTILINE)}


@pytest.mark.parametrize("kind", KINDS)
def test_mutations(kind, fuzzer, capsys):
    done = fuzz(fuzzer, kind, MUTATIONS)
    assert done.returncode == 0, done.stderr
    plain, sealed, sections = (counts(done.stdout, word) for word in ("plain", "sealed", "section"))
    with capsys.disabled():
        for name, statuses in (("as they are", plain), ("sealed", sealed)):
            text = ", ".join(f"{Status(s).name} {n}" for s, n in sorted(statuses.items(), key=lambda item: -item[1]))
            sys.stdout.write(f"\n{MUTATIONS} mutations of {kind}, {name}: {text}")
    assert sum(plain.values()) == sum(sealed.values()) == MUTATIONS
    damaged = Status.DAMAGED if kind == "artifact" else Status.CHECKPOINT_DAMAGED
    malformed = Status.MALFORMED if kind == "artifact" else Status.CHECKPOINT_MALFORMED
    # Checksums see most of it, and behind them the validators.
    assert plain[damaged] > MUTATIONS // 2 > 4 * sealed.get(damaged, 0)
    assert sealed[malformed] > MUTATIONS // 4
    if kind == "checkpoint":
        assert sealed[Status.CHECKPOINT_MISMATCH] > MUTATIONS // 20
    if kind == "artifact":
        unread = {Section.MANIFEST, Section.SIGNATURE, Section.ORIGINALS, Section.SOURCE}
        checked = set(Section) - {Section.STRINGS} - unread
        assert all(sections[section] > 10 for section in checked), "a validator was not reached"


# A check of a reader, what stands there without it, and the kind of file that must then be seen to do harm.
CHECKS = [
    ("reader", "s->bytes > a->bytes - s->offset", "0", "artifact"),
    ("validate", "return within(b->offset, b->bytes, p->arena_bytes);", "return b != 0 && p != 0;", "artifact"),
    ("validate", "c->kernel >= a->kernel_count ||", "", "artifact"),
    ("image", "header->segments > size ||", "", "artifact"),
    ("tensorfile", "h->name_bytes > left - h->count * sizeof(tensorfile_entry)", "0", "tensors"),
    ("tensorfile", "|| stop == NULL", "", "tensors"),
    ("tensorfile", "e->offset != end || end > limit || size > limit - end", "0", "tensors"),
    ("checkpoint", "e == NULL ||", "", "checkpoint"),
]


@pytest.mark.long
@pytest.mark.parametrize("source, check, without, kind", CHECKS)
def test_a_missing_check_is_found(source, check, without, kind, folder):
    text = (CSRC / f"{source}.c").read_text()
    assert text.count(check) == 1
    (folder / "mutant").mkdir(exist_ok=True)
    mutant = folder / "mutant" / f"{source}.c"
    mutant.write_text(text.replace(check, without))
    done = fuzz(link(folder, "weak", **{source: mutant}), kind, MUTATIONS)
    assert done.returncode != 0 and re.search("Sanitizer|runtime error", done.stderr), "nothing was reported"
    assert re.search(r"^mutation \d+$", done.stderr, re.MULTILINE)


@needs_clang
@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_coverage_guided(kind, folder, tmp_path):
    """libFuzzer on the same readers, with mutations of its own."""
    program = tmp_path / "libfuzzer"
    sources = [*SOURCES, *FUZZ.glob("*.c")]
    flags = ["-DEDGEC_LIBFUZZER", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([COMPILER, *FLAGS, *flags, *sources, "-o", program], check=True)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    shutil.copy(folder / ("sample.edge" if kind == "artifact" else "sample.edgeckpt"), corpus)
    environment = os.environ | {"EDGEC_FUZZ_KIND": kind, "EDGEC_FUZZ_ARTIFACT": str(folder / "sample.edge")}
    command = [program, "-runs=50000", "-seed=1", "-max_len=65536", f"-artifact_prefix={tmp_path}/", corpus]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
