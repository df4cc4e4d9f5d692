"""The command: verbs, flags and help; what a mistake looks like; every verb on small models."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tercet import cli
from tercet.config import TransformerConfig
from tercet.files import locked
from tercet.language_model import LanguageModel, load
from tercet.model import build
from tercet.text import train_tokenizer

SENTENCE = "the cat sat on the mat while the dog slept"
TEXTS = [SENTENCE, "a list of numbers", "the third of May"]
ROWS = {  # each family's row of the table of architectures, small
    "encoder": {"encoder_layers": 2, "heads": ("masked",), "context_length": 32},
    "decoder": {"decoder_layers": 2, "qk_norm": True, "context_length": 32},
    "encoder-decoder": {"encoder_layers": 1, "decoder_layers": 1, "context_length": 64},
}
PLAIN = {  # what these rows share: no bias anywhere, gates, an output table of its own
    "norm": "rms",
    "norm_bias": False,
    "gated": True,
    "ff_bias": False,
    "qkv_bias": False,
    "attention_bias": False,
    "tie_embeddings": False,
}
ROTARY = {**PLAIN, "positions": "rotary", "activation": "silu"}
RELATIVE = {
    **PLAIN,
    "positions": "relative",
    "activation": "gelu_tanh",
    "attention_scale": 1.0,
    "norm_eps": 1e-6,
    "start_id": 0,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder for each family: random weights, a tokenizer learned from a few sentences."""
    folders = {}
    for family, row in ROWS.items():
        tokenizer = train_tokenizer(TEXTS * 3, vocab_size=400, special=family)
        config = TransformerConfig(
            vocab_size=tokenizer.vocab_size,
            d_model=32,
            d_ff=64,
            n_heads=4,
            eos_ids=() if tokenizer.eos_id is None else (tokenizer.eos_id,),
            pad_id=tokenizer.pad_id,
            **{**(RELATIVE if family == "encoder-decoder" else ROTARY), **row},
        )
        folder = tmp_path_factory.mktemp(family)
        LanguageModel(build(config, seed=0), tokenizer).save(folder)
        folders[family] = str(folder)
    return folders


def tercet(*args: str, timeout: int = 120, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tercet", *args],
        capture_output=True,
        text=True,
        timeout=timeout,
        **options,
    )


# help, verbs and mistakes ------------------------------------------------------------------------


def test_help_waits_for_no_library():
    """It is there in a tenth of a second since nothing heavy is imported for it."""
    program = "import sys; from tercet import cli; cli.run(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    said, _, modules = done.stdout.rstrip().rpartition("\n")
    assert all(verb in said for verb in cli.VERBS)
    assert not {"torch", "numpy", "tokenizers", "yaml"} & set(modules.split())


def test_no_verb_is_a_cry_for_help(run):
    assert run() == run("--help") and run("--version")[1].startswith("tercet ")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_an_example_that_it_understands(verb: str, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run([*verb.split(), "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and "usage: tercet " + verb in said
    example = next(line for line in said.splitlines()[1:] if f"tercet {verb}" in line)
    words = shlex.split(example[example.index("tercet ") :])[1 + len(verb.split()) :]
    module, _, name = cli.VERBS[verb][0].partition(":")
    function = getattr(__import__(module, fromlist=[name]), name)
    assert callable(cli.parse(function, verb, words))


def test_help_of_a_verb_loads_no_torch():
    program = (
        "import sys; from tercet import cli\n"
        "try: cli.run(['generate', '--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["genrate"], "there is no verb 'genrate'; did you mean 'generate'?"),
        (["xyzzy"], "there is no verb 'xyzzy'; the verbs are quickstart, info,"),
        (["tokenizer"], "'tercet tokenizer' needs a second word: tokenizer train"),
        (["fill"], "missing from tercet fill: MODEL"),
        (["generate", "m", "t", "--temprature", "1"], "--temprature"),
        (["generate", "m", "t", "--top-k", "many"], "--top-k 'many' is not understood"),
        (["generate", "m", "t", "--overflow", "sometimes"], "'sometimes'"),
        (["generate", "m"], "give a TEXT or --file FILE, not neither"),
        (["embed", "m"], "give a FILE or --text TEXT, not neither"),
        (["generate", "no-such-folder", "text"], "no-such-folder: there is no such folder"),
        (["generate", "m", "t", "--temperature", "-1"], "temperature -1.0 must be 0 (greedy)"),
        (["generate", "m", "t", "--top-p", "1.5"], "top_p 1.5 must be above 0 and at most 1"),
        (["embed", "m", "no-such-file"], "no-such-file: no such file"),
        (["embed", "m", "--text", "a", "--out", "a.csv"], "--out a.csv: the array is a .npy file"),
        (["tokenizer", "train"], "FILE"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args: list[str], said: str, run):
    code, out, err = run(*args)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("tercet: ") and said in err


def test_a_flag_that_is_nearly_right_is_suggested(run):
    assert "--temperature" in run("generate", "m", "t", "--temprature", "1")[2]


def test_a_mistake_in_the_shell_shows_no_traceback():
    done = tercet("info", "no-such-folder")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("tercet: ") and done.stderr.count("\n") == 1


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "dispatch", lambda args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.run(["info"])


def test_control_c_is_a_line_and_130(monkeypatch, run):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "dispatch", stopped)
    assert run("info") == (130, "", "\ntercet: stopped\n")


def test_a_reader_that_leaves_is_no_error():
    program = (
        "import sys; from tercet import cli\n"
        "cli.dispatch = lambda args: [print('x' * 100) for _ in range(10_000)] and 0\n"
        "sys.exit(cli.run([]))"
    )
    done = subprocess.run(
        f"{sys.executable} -c {shlex.quote(program)} | head -1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "x" * 100 + "\n" and done.stderr == ""


# the verbs ---------------------------------------------------------------------------------------


def test_generate_streams_what_it_returns(models, run):
    folder = models["decoder"]
    flags = ("--max-new-tokens", "8", "--temperature", "0.9", "--top-k", "50", "--seed", "3")
    code, out, _ = run("generate", folder, "the cat", *flags)
    assert code == 0
    code, found, _ = run("generate", folder, "the cat", *flags, "--json")
    found = json.loads(found)
    assert found["text"] == out.removesuffix("\n") and found["prompt"] == "the cat"
    assert found["finish"] in ("stop", "length") and len(found["ids"]) <= 8
    assert len(found["log_probabilities"]) == len(found["ids"])


def test_samples_are_so_many_different_texts(models, run, tmp_path):
    flags = ("--max-new-tokens", "8", "--temperature", "1", "--seed", "3")
    one = run("generate", models["decoder"], "the cat", *flags, "--json")[1]
    code, out, _ = run("generate", models["decoder"], "the cat", *flags, "--samples", "3")
    lines = out.split("\n")[:-1]
    assert code == 0 and len(lines) == len(set(lines)) == 3
    assert json.loads(one)["text"].replace("\n", "\\n") == lines[0]
    (tmp_path / "lines.txt").write_text("a list\nthe cat\n")
    asked = ("--file", str(tmp_path / "lines.txt"), *flags, "--samples", "3")
    assert run("generate", models["decoder"], *asked)[1].split("\n")[3:-1] == lines


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_fewer_bits_from_the_command(models, run, precision):
    """Every verb takes them; texts may differ, but not by much in a model this small."""
    how = ("--precision", precision)
    for verb, family, text in (
        ("generate", "decoder", "the cat"),
        ("translate", "encoder-decoder", "the third of May"),
        ("fill", "encoder", "the cat sat on the [MASK]"),
    ):
        code, out, err = run(verb, models[family], text, *how)
        assert code == 0 and out.strip(), err
    code, _, err = run("generate", models["decoder"], "the cat", "--precision", "int3")
    assert code == 2 and "int3" in err


def test_a_draft_changes_no_text(models, run):
    asked = ("generate", models["decoder"], "the cat", "--max-new-tokens", "20")
    plain = run(*asked)
    for draft in ("lookup", models["decoder"]):
        assert run(*asked, "--draft", draft) == plain
    assert run(*asked, "--draft", models["encoder"])[0] == 2


def test_penalties_and_bias_from_the_command(models, run):
    asked = ("generate", models["decoder"], "the cat", "--max-new-tokens", "12", "--json")
    free = json.loads(run(*asked)[1])["ids"]
    forbidden = json.loads(run(*asked, "--bias", f"{free[0]}=-inf")[1])["ids"]
    assert free[0] not in forbidden
    never = json.loads(run(*asked, "--repetition-penalty", "1000")[1])["ids"]
    assert len(set(never)) == len(never)
    code, _, err = run(*asked, "--bias", "the=2")
    assert code == 2 and "--bias 'the=2'" in err
    code, _, err = run(*asked, "--samples", "2")
    assert code == 2 and "samples 2 at temperature 0" in err


def test_a_file_gives_a_line_each_and_a_bad_one_does_not_stop_the_rest(models, run, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text(f"the cat\n{SENTENCE * 20}\n\na list\n")
    code, out, err = run(
        "generate", models["decoder"], "--file", str(file), "--max-new-tokens", "4"
    )
    lines = out.split("\n")
    assert code == 2 and len(lines) == 5 and lines[1] == lines[2] == ""
    assert "tercet: text 2: " in err and "tercet: text 3: " in err
    alone = run("generate", models["decoder"], "a list", "--max-new-tokens", "4", "--json")[1]
    assert json.loads(alone)["text"].replace("\n", "\\n") == lines[3]


def test_a_dash_reads_standard_input(models, run, monkeypatch):
    flags = ("--max-new-tokens", "4")
    direct = run("generate", models["decoder"], "the cat", *flags)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\n")))
    assert run("generate", models["decoder"], "-", *flags) == direct


def test_fill_gives_words_with_their_probabilities(models, run):
    text = "the cat sat on the [MASK]"
    code, out, _ = run("fill", models["encoder"], text, "--top-k", "3")
    assert code == 0 and len(out.splitlines()) == 3 and "%" in out
    found = json.loads(run("fill", models["encoder"], text, "--top-k", "3", "--json")[1])
    chances = [fill["probability"] for fill in found["masks"][0]]
    assert chances == sorted(chances, reverse=True) and len(chances) == 3


def test_translate_gives_the_best_or_several(models, run):
    flags = ("--beams", "3", "--max-new-tokens", "5")
    code, out, _ = run("translate", models["encoder-decoder"], "the third of May", *flags)
    assert code == 0 and out.count("\n") == 1
    best = run("translate", models["encoder-decoder"], "the third of May", *flags, "--n-best", "2")
    assert best[1].splitlines()[0] == out.removesuffix("\n") and best[1].count("\n") == 2


def test_embed_writes_an_array_in_the_order_of_the_lines(models, run, tmp_path):
    file, out = tmp_path / "lines.txt", tmp_path / "made" / "lines.npy"
    file.write_text("\n".join(TEXTS) + "\n")
    code, _, err = run("embed", models["encoder"], str(file), "--out", str(out))
    assert code == 0 and "3 x 32 float32" in err
    vectors = np.load(out)
    assert vectors.shape == (3, 32) and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, load(models["encoder"]).embed(TEXTS))
    rows = run("embed", models["encoder"], str(file), "--json")[1].splitlines()
    assert [json.loads(row)["text"] for row in rows] == TEXTS
    np.testing.assert_array_equal(np.float32(json.loads(rows[2])["vector"]), vectors[2])


def test_what_embed_cuts_is_counted(models, run, tmp_path):
    (tmp_path / "long.txt").write_text("\n".join([*TEXTS, SENTENCE * 20]))
    args = (
        "embed",
        models["encoder"],
        str(tmp_path / "long.txt"),
        "--out",
        str(tmp_path / "v.npy"),
    )
    code, _, err = run(*args)
    n = len(load(models["encoder"]).tokenizer.encode(SENTENCE * 20)) - 2  # [CLS], [SEP]
    cut = f"25 % of texts lost {100 * (n - 30) / n:.0f} % of their tokens (overflow 'keep-start')"
    assert code == 0 and err.splitlines()[0] == f"tercet: {cut}"


def test_score_gives_perplexity_and_each_token(models, run, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(TEXTS))
    code, out, _ = run("score", models["decoder"], str(file))
    assert code == 0 and len(out.splitlines()) == 4 and "(all 3 texts)" in out
    counts = [int(line.split()[1]) for line in out.splitlines()]
    assert sum(counts[:3]) == counts[3]
    found = json.loads(run("score", models["decoder"], "--text", SENTENCE, "--json")[1])
    known = [value for _, value in found["tokens"] if value is not None]
    assert found["perplexity"] == pytest.approx(np.exp(-np.mean(known)))


@pytest.mark.parametrize(
    ("family", "kinds"), [("encoder", 1), ("decoder", 1), ("encoder-decoder", 3)]
)
def test_attend_writes_a_page(family: str, kinds: int, models, run, tmp_path):
    out = tmp_path / "page.html"
    code, _, err = run("attend", models[family], "the cat sat", "--out", str(out))
    assert code == 0 and f"{kinds} map" in err
    assert out.read_text().count('<figure class="attention"') == kinds


def test_tokenizer_train_writes_a_folder(run, tmp_path):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 3))
    code, _, err = run(
        *("tokenizer", "train", str(tmp_path / "text.txt"), "--out", str(tmp_path / "tokenizer")),
        *("--kind", "wordpiece", "--special", "encoder", "--vocab-size", "120"),
    )
    assert code == 0 and "wordpiece" in err
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()


def test_info_says_what_a_model_is(models, run):
    for family, folder in models.items():
        found = json.loads(run("info", folder, "--json")[1])
        assert found["family"] == family
        parameters = sum(p.numel() for p in load(folder).network.parameters())
        assert found["plan"]["total"]["parameters"] == parameters
        code, out, _ = run("info", folder)
        assert code == 0 and f"{parameters:,}" in out and family in out


@pytest.mark.parametrize(
    "has, torch_has, said",
    [
        ({"avx512_bf16", "avx512_vnni"}, False, ["float32", "bfloat16", "int8", "int4"]),
        (
            {"avx512_bf16", "avx512_fp16", "avx512_vnni"},  # Intel's without their AMX
            True,
            ["float32", "bfloat16 (many rows: slower than float32)", "int8", "int4"],
        ),
        (set(), True, ["float32", "bfloat16", "int8", "int4"]),  # the system does not say
        (set(), False, ["float32", "bfloat16 (emulated: slow)", "int8", "int4"]),
        (
            {"sse2"},
            True,
            ["float32", *(f"{k} (emulated: slow)" for k in ("bfloat16", "int8", "int4"))],
        ),
    ],
)
def test_what_the_processor_emulates_is_said(has, torch_has, said, models, run, monkeypatch):
    monkeypatch.setattr("tercet.kernels.processor.features", lambda: frozenset(has))
    monkeypatch.setattr("tercet.kernels.processor._vendor", lambda: "GenuineIntel")
    monkeypatch.setattr("tercet.kernels.processor._torch_multiplies_bfloat16", lambda: torch_has)
    assert json.loads(run("info", "gpt2", "--json")[1])["precisions"] == said
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load(models["decoder"], precision="bfloat16")
    assert ("emulated" in said[1]) == any("is emulated" in str(w.message) for w in told)


def test_torch_and_the_tokenizer_share_one_setting_of_threads(models):
    code = (
        f"import os, torch, tercet; tercet.load({str(models['decoder'])!r}); "
        "print(os.environ['RAYON_NUM_THREADS'], torch.get_num_threads())"
    )
    unset = {k: v for k, v in os.environ.items() if k != "RAYON_NUM_THREADS"}
    for own in ({}, {"OMP_NUM_THREADS": "1"}):
        env = {k: v for k, v in unset.items() if k != "OMP_NUM_THREADS"} | own
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        tokenizer, threads = done.stdout.split()
        assert tokenizer == threads and (not own or threads == "1")


def test_info_of_a_preset_builds_nothing(run):
    code, out, _ = run("info", "gpt3-175b")
    assert code == 0 and "174,604,259,328 parameters" in out
    code, out, _ = run("info", "gpt2", "--batch", "8", "--length", "512", "--json")
    assert json.loads(out)["plan"]["n_tokens"] == 4096
    assert run("info", "gpt2", "--batch", "0")[2] == "tercet: --batch 0 must be 1 or more\n"


# bad folders: tried one by one beside their readers; here, that the command says each in a line

DAMAGE = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "config that is no JSON": lambda folder: (folder / "config.json").write_text("{'a': 1}"),
    "config of a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config that is no text": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\xff"),
    "tokenizer that is no JSON": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "truncated weights": lambda folder: _cut(folder / "model.safetensors", 1000),
    "empty weights": lambda folder: _cut(folder / "model.safetensors", 0),
    "unknown type": lambda folder: _set(folder / "config.json", "model_type", "perceptron"),
    "no type": lambda folder: _set(folder / "config.json", "model_type", None),
    "other shapes": lambda folder: _set(folder / "config.json", "hidden_size", 64),
    "one layer more": lambda folder: _set(folder / "config.json", "num_hidden_layers", 3),
    "a string for a size": lambda folder: _set(folder / "config.json", "hidden_size", "wide"),
    "a negative size": lambda folder: _set(folder / "config.json", "num_hidden_layers", -1),
    "an unknown setting": lambda folder: _set(folder / "config.json", "flux_capacitor", True),
}


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _set(path: Path, key: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_one_line(damage: str, models, run, tmp_path):
    folder = shutil.copytree(models["decoder"], tmp_path / "model")
    DAMAGE[damage](folder)
    code, out, err = run("generate", str(folder), "the cat")
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("tercet: "), err


# bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "family", "can"),
    [
        ("generate", "encoder", "fill"),
        ("fill", "decoder", "generate"),
        ("translate", "decoder", "score"),
    ],
)
def test_what_a_family_cannot_do_says_what_it_can(verb: str, family: str, can: str, models, run):
    code, out, err = run(verb, models[family], "a [MASK]")
    assert code == 2 and out == "" and "; it can " in err and can in err


def test_a_file_that_is_not_utf8_names_the_line(models, run, tmp_path):
    (tmp_path / "latin.txt").write_bytes("one\ntwo\ncaf\xe9\n".encode("latin1"))
    for args in (
        ("embed", str(tmp_path / "latin.txt")),
        ("generate", "--file", str(tmp_path / "latin.txt")),
    ):
        code, _, err = run(args[0], models["decoder"], *args[1:])
        assert code == 2 and "latin.txt, line 3: byte 0xe9" in err and "iconv" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("generate", ""), "empty"),
        (("generate", "the cat", "--max-new-tokens", "0"), "0"),
        (("generate", "the cat", "--max-new-tokens", "-3"), "-3"),
        (("generate", "the cat", "--max-new-tokens", "500"), "500"),
        (("generate", SENTENCE * 9), "32"),
        (("score", "--text", SENTENCE * 9), "32"),
        (("score", "--text", " "), "empty"),
        (("attend", SENTENCE * 9), "32"),
    ],
)
def test_bad_text_and_lengths_are_a_line_with_the_value(args, said: str, models, run, tmp_path):
    code, out, err = run(args[0], models["decoder"], *args[1:])
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err


def test_an_empty_line_is_named(models, run, tmp_path):
    (tmp_path / "gap.txt").write_text("one\n\ntwo\n")
    code, _, err = run("embed", models["encoder"], str(tmp_path / "gap.txt"))
    assert code == 2 and "gap.txt, line 2: is empty" in err
    (tmp_path / "nothing.txt").write_text("")
    assert (
        "nothing.txt: is empty" in run("embed", models["encoder"], str(tmp_path / "nothing.txt"))[2]
    )


def test_an_output_that_cannot_be_written_is_named(models, run, tmp_path):
    (tmp_path / "file").write_text("")
    bad = str(tmp_path / "file" / "below")
    for args in (
        ("embed", models["encoder"], "--text", "a", "--out", bad + ".npy"),
        ("attend", models["encoder"], "a cat", "--out", bad + ".html"),
    ):
        code, _, err = run(*args)
        assert code == 2 and bad in err and err.count("\n") == 1, err


def test_a_disk_that_fills_up_while_a_model_is_saved_leaves_the_old_one(models, tmp_path):
    load(models["decoder"]).save(tmp_path / "saved")
    before = {p.name: p.read_bytes() for p in (tmp_path / "saved").iterdir()}
    program = (
        "import resource, sys, tercet\n"
        "model = tercet.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: model.save(sys.argv[2])\n"
        "except tercet.InputError as error: print(error); sys.exit(2)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, models["decoder"], str(tmp_path / "saved")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "saved" in done.stdout, done.stdout + done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "saved").iterdir()} == before


def test_control_c_while_generating(models, tmp_path):
    endless = shutil.copytree(models["decoder"], tmp_path / "endless")
    never = {"suppress_tokens": list(load(endless).config.eos_ids)}
    (endless / "generation_config.json").write_text(json.dumps(never))
    asked = ["--temperature", "1", "--overflow", "slide", "--max-new-tokens", "1000000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "tercet", "generate", str(endless), "the cat", *asked],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert running.stdout and running.stdout.read(1)  # the first of the text is there
    running.send_signal(signal.SIGINT)
    rest, err = running.communicate(timeout=60)
    assert (running.returncode, err.decode()) == (130, "\ntercet: stopped\n")
    assert len(rest) < 1_000_000 and b"Traceback" not in rest


@pytest.mark.parametrize(
    ("verb", "family"), [("generate", "decoder"), ("translate", "encoder-decoder")]
)
def test_a_file_is_answered_group_by_group(verb, family, models, run, tmp_path, monkeypatch):
    (tmp_path / "lines.txt").write_text("the cat\n" * 40)
    seen, answer = [], getattr(LanguageModel, verb)

    def stopped(self, texts, **how):
        seen.append(len(texts))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return answer(self, texts, **how)

    monkeypatch.setattr(LanguageModel, verb, stopped)
    args = ("--file", str(tmp_path / "lines.txt"), "--max-new-tokens", "1")
    code, out, _ = run(verb, models[family], *args)
    assert code == 130 and out.count("\n") == 32 and seen == [32, 8]


def test_outputs_are_tried_before_the_work(run, tmp_path):
    (tmp_path / "file").write_text("")
    bad = str(tmp_path / "file" / "below")
    for args in (
        ("embed", "no-model", "--text", "a", "--out", bad + ".npy"),
        ("attend", "no-model", "a cat", "--out", bad + ".html"),
        ("tokenizer", "train", "no-text", "--out", bad),
    ):
        code, _, err = run(*args)
        assert code == 2 and err.startswith(f"tercet: {args[-1]}: cannot be written"), err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("size", ["-5", "0", str(10**20)])
def test_a_vocabulary_out_of_range(size: str, run, tmp_path):
    out = str(tmp_path / "t")
    code, _, err = run("tokenizer", "train", "no-text", "--out", out, "--vocab-size", size)
    assert code == 2 and f"vocab_size {size} is outside 1.." in err


def test_verbs_without_a_policy_name_none(models, run):
    for verb, family in (
        ("attend", "decoder"),
        ("fill", "encoder"),
        ("translate", "encoder-decoder"),
    ):
        code, _, err = run(verb, models[family], SENTENCE * 20)
        assert code == 2 and err.endswith("shorten it\n"), err
    assert "choose an overflow" in run("score", models["decoder"], "--text", SENTENCE * 20)[2]
    code, _, err = run("attend", models["decoder"], "the cat", "--target", "le chat")
    assert code == 2 and "'le chat' is for an encoder" in err
    assert run("score", models["encoder"], "--text", "a")[2].endswith(
        "it can embed, fill, attend\n"
    )


def test_info_reads_no_weights(models, run, monkeypatch):
    from tercet.hf.weights import Weights

    monkeypatch.setattr(Weights, "get", lambda self, name: 1 / 0)
    found = json.loads(run("info", models["decoder"], "--json")[1])
    assert found["can"] == ["embed", "generate", "chat", "score", "attend"]
    assert "did you mean 'gpt2" in run("info", "gpt9")[2]
    assert run("info", "")[2].startswith("tercet: MODEL '' is empty")


def test_choices_are_in_order_without_none(run):
    said = run("embed", "m", "--text", "a", "--pool", "x")[2]
    assert "Expected one of first, last, mean;" in said


def test_two_quickstarts_in_one_folder(tmp_path):
    with locked(tmp_path):
        done = tercet("quickstart", "--folder", str(tmp_path))
    assert done.returncode == 2 and f"(process {os.getpid()})" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_behind_the_output_is_said(models):
    with open("/dev/full", "w") as full:
        command = ["generate", models["decoder"], "the cat", "--max-new-tokens", "3"]
        done = subprocess.run(
            [sys.executable, "-m", "tercet", *command], stdout=full, stderr=subprocess.PIPE
        )
    said = b"tercet: the output cannot be written (No space left on device)"
    assert (done.returncode, done.stderr.strip()) == (2, said)


def test_a_stop_string_leaves_the_text_to_the_model(models, run):
    args = ("generate", models["decoder"], "--stop", "zz", "--stop", "yy", "the cat")
    assert run(*args, "--max-new-tokens", "3")[0] == 0


def test_what_slid_out_of_sight_is_said_once_for_a_whole_file(models, run, tmp_path):
    (tmp_path / "lines.txt").write_text("the cat\n" * 40)
    args = ("--file", str(tmp_path / "lines.txt"), "--overflow", "slide", "--max-new-tokens", "70")
    code, out, err = run("generate", models["decoder"], *args)
    assert code == 0 and len(out.splitlines()) == 40
    assert err.count("outgrew the context") == 1 and "40 of 40 texts" in err
