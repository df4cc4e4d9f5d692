"""A masked-language-model step: 4 layers, width 256, vocabulary of 8,192, batches of 32 texts of
10 to 128 tokens, bfloat16, AdamW. Real tokens are counted, padding is not.

The peer pads each unsorted batch to its longest text, with its own collator.

    make benchmark JOB=train_masked
"""

from __future__ import annotations

from compare import Figures, main, timed
from train_char import Speed

TEXTS, VOCABULARY, MASK = 32, 8192, 4
STEPS, WARM = 40, 5


def _batches() -> list[list[list[int]]]:
    import torch

    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 129, (STEPS + WARM, TEXTS), generator=draw).tolist()
    return [
        [torch.randint(5, VOCABULARY, (n,), generator=draw).tolist() for n in row]
        for row in lengths
    ]


def tercet() -> Figures:
    import torch

    from tercet.data import Masked, Masking, Sample
    from tercet.kernels.memory import keep_pages
    from tercet.model import build
    from tercet.presets import preset
    from tercet.train import CrossEntropy, Optimizer, Recipe, fit

    keep_pages()
    config = preset("bert-mini").replace(
        **dict(vocab_size=VOCABULARY, context_length=128, heads=("masked",)),
        **dict(dropout=0.0, attention_dropout=0.0, head_dropout=0.0),
    )
    network, shape = build(config), Masked(Masking(MASK, VOCABULARY))
    batches = [
        [Sample((step, i), torch.tensor(ids)) for i, ids in enumerate(texts)]
        for step, texts in enumerate(_batches())
    ]
    speed = Speed(0, WARM)
    fit(
        network,
        lambda step: [shape.batch(batches[step])],
        CrossEntropy(),
        Recipe(1e-4, steps=WARM + STEPS, bfloat16=True),
        Optimizer(network),
        actions=[(1, speed)],
    )
    real = sum(len(sample.ids) for texts in batches[WARM:] for sample in texts)
    return {"real tokens/s": real / (speed.times[-1] - speed.times[WARM - 1])}


def transformers() -> Figures:
    import torch
    from tokenizers import Tokenizer, models
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DataCollatorForLanguageModeling,
        PreTrainedTokenizerFast,
    )

    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": MASK}
    words |= {f"w{i}": i for i in range(5, VOCABULARY)}
    names = dict(pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]")
    library = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, **names)
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    shape = dict(hidden_size=256, num_hidden_layers=4, num_attention_heads=4)
    plain = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    sizes = dict(vocab_size=VOCABULARY, intermediate_size=1024, max_position_embeddings=128)
    config = BertConfig(attn_implementation="sdpa", **shape, **plain, **sizes)
    model = BertForMaskedLM(config).train()
    settings = dict(betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, **settings)
    batches, at = _batches(), -1

    def step() -> None:
        nonlocal at
        at += 1
        batch = collate([{"input_ids": ids} for ids in batches[at]])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return {"real tokens/s": timed(step, lambda: sum(map(len, batches[at])), STEPS, WARM)}


if __name__ == "__main__":
    sides = {"tercet": tercet, "transformers": transformers}
    main("masked-LM step, 4 layers, width 256, bfloat16", sides, key="real tokens/s")
