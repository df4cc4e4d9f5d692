"""The names of tensors in Hugging Face checkpoints, as tables read both ways. Data only.

A Rule says which of their tensors is which of ours. ``{}`` stands for the number of a layer, ``*``
for ``weight`` or ``bias``. ``op`` names an invertible pair of matching.py: keep, transpose, split
(rows of one matrix are several of ours), split-columns (the same, stored transposed), row.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """One of their tensors is this of ours (several: their parts, in order)."""

    theirs: str
    ours: str | tuple[str, ...]
    op: str = "keep"
    optional: bool = False  # zeros where the checkpoint has no such tensor
    gated: bool | None = None  # only where the feed-forward is, or is not, gated; None: always


@dataclass(frozen=True)
class Form:
    """A class of `transformers`: the heads it has, and the rules of their tensors."""

    architecture: str
    heads: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    bare: bool = False  # saved without the prefix


@dataclass(frozen=True)
class Table:
    """All names of one model_type.

    prefix: stands before the names of the body where there is a head; read with and without.
    forms: the first that explains all tensors is the one; order settles ties.
    copies: tensors that repeat another one; they must be equal to it, and stand in for it.
    ignored: tensors that hold no weights (masks, position numbers).
    """

    prefix: str
    body: tuple[Rule, ...]
    forms: tuple[Form, ...]
    copies: dict[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def _rules(pairs: dict[str, str], op: str = "keep") -> tuple[Rule, ...]:
    return tuple(Rule(theirs, ours, op) for theirs, ours in pairs.items())


OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}  # norms in checkpoints of 2018
OUTPUT, OUTPUT_BIAS = "heads.output.weight", "heads.output_bias"
POOLER, CLASSIFIER, TAGGER, SPAN = (
    f"heads.{head}.*" for head in ("pooler", "classifier", "tagger", "span")
)

# BERT, MiniLM, RoBERTa -------------------------------------------------------------------------

_BERT_BODY = _rules(
    {
        "embeddings.word_embeddings.weight": "tokens.weight",
        "embeddings.position_embeddings.weight": "encoder.embedding.positions.weight",
        "embeddings.token_type_embeddings.weight": "encoder.embedding.types.weight",
        "embeddings.LayerNorm.*": "encoder.embedding.norm.*",
        "encoder.layer.{}.attention.self.query.*": "encoder.blocks.{}.attention.layer.q.*",
        "encoder.layer.{}.attention.self.key.*": "encoder.blocks.{}.attention.layer.k.*",
        "encoder.layer.{}.attention.self.value.*": "encoder.blocks.{}.attention.layer.v.*",
        "encoder.layer.{}.attention.output.dense.*": "encoder.blocks.{}.attention.layer.o.*",
        "encoder.layer.{}.attention.output.LayerNorm.*": "encoder.blocks.{}.attention.after.*",
        "encoder.layer.{}.intermediate.dense.*": "encoder.blocks.{}.feed_forward.layer.up.*",
        "encoder.layer.{}.output.dense.*": "encoder.blocks.{}.feed_forward.layer.down.*",
        "encoder.layer.{}.output.LayerNorm.*": "encoder.blocks.{}.feed_forward.after.*",
    }
)
_BERT_POOLER = (Rule("pooler.dense.*", POOLER),)
_BERT_MASKED = _rules(
    {
        "cls.predictions.bias": "heads.output_bias",
        "cls.predictions.transform.dense.*": "heads.transform.dense.*",
        "cls.predictions.transform.LayerNorm.*": "heads.transform.norm.*",
        "cls.predictions.decoder.weight": OUTPUT,
    }
)
_BERT_NEXT = (*_BERT_POOLER, Rule("cls.seq_relationship.*", "heads.next_sentence.*"))
_TAGGER = (Rule("classifier.*", TAGGER),)
_SPAN = (Rule("qa_outputs.*", SPAN),)
_SCORE = (Rule("score.weight", "heads.classifier.weight"),)  # decoders: without a bias
_LABELS = _rules(  # encoder-decoders
    {"classification_head.dense.*": POOLER, "classification_head.out_proj.*": CLASSIFIER}
)

BERT = Table(
    prefix="bert.",
    body=_BERT_BODY,
    forms=(
        Form(
            "BertForPreTraining", ("masked", "pooler", "next_sentence"), _BERT_MASKED + _BERT_NEXT
        ),
        Form("BertForMaskedLM", ("masked",), _BERT_MASKED),
        Form("BertForMaskedLM", ("masked", "pooler"), _BERT_MASKED + _BERT_POOLER),
        Form("BertForNextSentencePrediction", ("pooler", "next_sentence"), _BERT_NEXT),
        Form(
            "BertForSequenceClassification",
            ("pooler", "classifier"),
            (*_BERT_POOLER, Rule("classifier.*", CLASSIFIER)),
        ),
        Form("BertForTokenClassification", ("tagger",), _TAGGER),
        Form("BertForQuestionAnswering", ("span",), _SPAN),
        Form("BertModel", ("pooler",), _BERT_POOLER, bare=True),
        Form("BertModel", bare=True),
    ),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=("embeddings.position_ids",),
)

_ROBERTA_MASKED = _rules(
    {
        "lm_head.bias": "heads.output_bias",
        "lm_head.dense.*": "heads.transform.dense.*",
        "lm_head.layer_norm.*": "heads.transform.norm.*",
        "lm_head.decoder.weight": OUTPUT,
    }
)
ROBERTA = Table(
    prefix="roberta.",
    body=_BERT_BODY,
    forms=(
        Form("RobertaForMaskedLM", ("masked",), _ROBERTA_MASKED),
        Form("RobertaForMaskedLM", ("masked", "pooler"), _ROBERTA_MASKED + _BERT_POOLER),
        Form(
            "RobertaForSequenceClassification",
            ("pooler", "classifier"),
            _rules({"classifier.dense.*": POOLER, "classifier.out_proj.*": CLASSIFIER}),
        ),
        Form("RobertaForTokenClassification", ("tagger",), _TAGGER),
        Form("RobertaForQuestionAnswering", ("span",), _SPAN),
        Form("RobertaModel", ("pooler",), _BERT_POOLER, bare=True),
        Form("RobertaModel", bare=True),
    ),
    copies={"lm_head.decoder.bias": "lm_head.bias"},
    ignored=("embeddings.position_ids",),
)

# DistilBERT, ModernBERT ------------------------------------------------------------------------

DISTILBERT = Table(
    prefix="distilbert.",
    body=_rules(
        {
            "embeddings.word_embeddings.weight": "tokens.weight",
            "embeddings.position_embeddings.weight": "encoder.embedding.positions.weight",
            "embeddings.LayerNorm.*": "encoder.embedding.norm.*",
            "transformer.layer.{}.attention.q_lin.*": "encoder.blocks.{}.attention.layer.q.*",
            "transformer.layer.{}.attention.k_lin.*": "encoder.blocks.{}.attention.layer.k.*",
            "transformer.layer.{}.attention.v_lin.*": "encoder.blocks.{}.attention.layer.v.*",
            "transformer.layer.{}.attention.out_lin.*": "encoder.blocks.{}.attention.layer.o.*",
            "transformer.layer.{}.sa_layer_norm.*": "encoder.blocks.{}.attention.after.*",
            "transformer.layer.{}.ffn.lin1.*": "encoder.blocks.{}.feed_forward.layer.up.*",
            "transformer.layer.{}.ffn.lin2.*": "encoder.blocks.{}.feed_forward.layer.down.*",
            "transformer.layer.{}.output_layer_norm.*": "encoder.blocks.{}.feed_forward.after.*",
        }
    ),
    forms=(
        Form(
            "DistilBertForMaskedLM",
            ("masked",),
            _rules(
                {
                    "vocab_transform.*": "heads.transform.dense.*",
                    "vocab_layer_norm.*": "heads.transform.norm.*",
                    "vocab_projector.bias": "heads.output_bias",
                    "vocab_projector.weight": OUTPUT,
                }
            ),
        ),
        Form(
            "DistilBertForSequenceClassification",
            ("pooler", "classifier"),
            _rules({"pre_classifier.*": POOLER, "classifier.*": CLASSIFIER}),
        ),
        Form("DistilBertForTokenClassification", ("tagger",), _TAGGER),
        Form("DistilBertForQuestionAnswering", ("span",), _SPAN),
        Form("DistilBertModel", bare=True),
    ),
    ignored=("embeddings.position_ids",),
)

_FUSED = tuple(f"encoder.blocks.{{}}.attention.layer.{part}.*" for part in "qkv")
MODERNBERT = Table(
    prefix="model.",
    body=(
        Rule("layers.{}.attn.Wqkv.*", _FUSED, "split"),
        Rule(
            "layers.{}.mlp.Wi.*",  # the first half goes through the activation
            tuple(f"encoder.blocks.{{}}.feed_forward.layer.{part}.*" for part in ("gate", "up")),
            "split",
        ),
        *_rules(
            {
                "embeddings.tok_embeddings.weight": "tokens.weight",
                "embeddings.norm.*": "encoder.embedding.norm.*",
                "layers.{}.attn_norm.*": "encoder.blocks.{}.attention.before.*",
                "layers.{}.attn.Wo.*": "encoder.blocks.{}.attention.layer.o.*",
                "layers.{}.mlp_norm.*": "encoder.blocks.{}.feed_forward.before.*",
                "layers.{}.mlp.Wo.*": "encoder.blocks.{}.feed_forward.layer.down.*",
                "final_norm.*": "encoder.norm.*",
            }
        ),
    ),
    forms=(
        Form(
            "ModernBertForMaskedLM",
            ("masked",),
            _rules(
                {
                    "head.dense.*": "heads.transform.dense.*",
                    "head.norm.*": "heads.transform.norm.*",
                    "decoder.weight": OUTPUT,
                    "decoder.bias": "heads.output_bias",
                }
            ),
        ),
        Form(
            "ModernBertForSequenceClassification",
            ("pooler", "classifier"),
            _rules(
                {
                    "head.dense.*": POOLER,
                    "head.norm.*": "heads.pooler_norm.*",
                    "classifier.*": CLASSIFIER,
                }
            ),
        ),
        Form("ModernBertModel", bare=True),
    ),
)

# EuroBERT, Llama, Mistral, Qwen2, Qwen3 ----------------------------------------------------------


def _rotary_table(side: str, *forms: Form) -> Table:
    """The body that all of them share, in an encoder or a decoder."""
    block, rows = f"{side}.blocks.{{}}", {"embed_tokens.weight": "tokens.weight"}
    for part in ("q", "k", "v", "o"):
        rows[f"layers.{{}}.self_attn.{part}_proj.*"] = f"{block}.attention.layer.{part}.*"
    for part in ("q_norm", "k_norm"):
        rows[f"layers.{{}}.self_attn.{part}.weight"] = f"{block}.attention.layer.{part}.weight"
    for part in ("gate", "up", "down"):
        rows[f"layers.{{}}.mlp.{part}_proj.*"] = f"{block}.feed_forward.layer.{part}.*"
    rows["layers.{}.input_layernorm.weight"] = f"{block}.attention.before.weight"
    rows["layers.{}.post_attention_layernorm.weight"] = f"{block}.feed_forward.before.weight"
    rows["norm.weight"] = f"{side}.norm.weight"
    ignored = ("layers.{}.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq")
    return Table("model.", _rules(rows), forms, ignored=ignored)


def _decoder_table(name: str) -> Table:
    return _rotary_table(
        "decoder",
        Form(f"{name}ForCausalLM", ("language",), (Rule("lm_head.weight", OUTPUT),)),
        Form(f"{name}ForSequenceClassification", ("classifier",), _SCORE),
        Form(f"{name}ForTokenClassification", ("tagger",), (Rule("score.*", TAGGER),)),
        Form(f"{name}Model", bare=True),
    )


EUROBERT = _rotary_table(
    "encoder",
    Form(
        "EuroBertForMaskedLM",
        ("masked",),
        _rules({"lm_head.weight": OUTPUT, "lm_head.bias": "heads.output_bias"}),
    ),
    Form(
        "EuroBertForSequenceClassification",
        ("pooler", "classifier"),
        _rules({"dense.*": POOLER, "classifier.*": CLASSIFIER}),
    ),
    Form("EuroBertForTokenClassification", ("tagger",), _TAGGER),
    Form("EuroBertModel", bare=True),
)

# GPT-1, GPT-2 ------------------------------------------------------------------------------------

_CONV1D = (  # matrices stored (in, out)
    Rule(
        "h.{}.attn.c_attn.*",
        tuple(f"decoder.blocks.{{}}.attention.layer.{part}.*" for part in "qkv"),
        "split-columns",
    ),
    *_rules(
        {
            "h.{}.attn.c_proj.*": "decoder.blocks.{}.attention.layer.o.*",
            "h.{}.mlp.c_fc.*": "decoder.blocks.{}.feed_forward.layer.up.*",
            "h.{}.mlp.c_proj.*": "decoder.blocks.{}.feed_forward.layer.down.*",
        },
        "transpose",
    ),
)
_MASKS = ("h.{}.attn.bias", "h.{}.attn.masked_bias")

GPT1 = Table(
    prefix="transformer.",
    body=(
        *_CONV1D,
        *_rules(
            {
                "tokens_embed.weight": "tokens.weight",
                "positions_embed.weight": "decoder.embedding.positions.weight",
                "h.{}.ln_1.*": "decoder.blocks.{}.attention.after.*",
                "h.{}.ln_2.*": "decoder.blocks.{}.feed_forward.after.*",
            }
        ),
    ),
    forms=(
        Form("OpenAIGPTLMHeadModel", ("language",), (Rule("lm_head.weight", OUTPUT),)),
        Form("OpenAIGPTForSequenceClassification", ("classifier",), _SCORE),
        Form("OpenAIGPTModel", bare=True),
    ),
    ignored=(*_MASKS, "position_ids"),
)
GPT2 = Table(
    prefix="transformer.",
    body=(
        *_CONV1D,
        *_rules(
            {
                "wte.weight": "tokens.weight",
                "wpe.weight": "decoder.embedding.positions.weight",
                "h.{}.ln_1.*": "decoder.blocks.{}.attention.before.*",
                "h.{}.ln_2.*": "decoder.blocks.{}.feed_forward.before.*",
                "ln_f.*": "decoder.norm.*",
            }
        ),
    ),
    forms=(
        Form("GPT2LMHeadModel", ("language",), (Rule("lm_head.weight", OUTPUT),)),
        Form("GPT2ForSequenceClassification", ("classifier",), _SCORE),
        Form("GPT2ForTokenClassification", ("tagger",), _TAGGER),
        Form("GPT2ForQuestionAnswering", ("span",), _SPAN),
        Form("GPT2Model", bare=True),
    ),
    ignored=_MASKS,
)

# T5, BART, Marian --------------------------------------------------------------------------------


def _t5_rules(side: str, *sublayers: str) -> tuple[Rule, ...]:
    """The sublayers of a side in their order: self-attention, (cross-attention), feed-forward."""
    bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rows = {f"{side}.final_layer_norm.weight": f"{side}.norm.weight"}
    rows[bias] = f"{side}.patterns.0.buckets.weight"
    theirs = ours = ""
    for i, name in enumerate(sublayers):
        theirs, ours = f"{side}.block.{{}}.layer.{i}", f"{side}.blocks.{{}}.{name}"
        rows[f"{theirs}.layer_norm.weight"] = f"{ours}.before.weight"
        inner = {"attention": "SelfAttention", "cross": "EncDecAttention"}.get(name)
        for part in "qkvo" if inner else "":
            rows[f"{theirs}.{inner}.{part}.weight"] = f"{ours}.layer.{part}.weight"
    theirs, ours = f"{theirs}.DenseReluDense", f"{ours}.layer"  # the last one
    return _rules(rows) + (
        Rule(f"{theirs}.wi.weight", f"{ours}.up.weight", gated=False),
        Rule(f"{theirs}.wi_0.weight", f"{ours}.gate.weight", gated=True),
        Rule(f"{theirs}.wi_1.weight", f"{ours}.up.weight", gated=True),
        Rule(f"{theirs}.wo.weight", f"{ours}.down.weight"),
    )


T5 = Table(
    prefix="transformer.",
    body=(
        Rule("shared.weight", "tokens.weight"),
        *_t5_rules("encoder", "attention", "feed_forward"),
        *_t5_rules("decoder", "attention", "cross", "feed_forward"),
    ),
    forms=(
        Form(
            "T5ForConditionalGeneration",
            ("language",),
            (Rule("lm_head.weight", OUTPUT),),
            bare=True,
        ),
        Form("T5ForSequenceClassification", ("pooler", "classifier"), _LABELS),
        Form("T5Model", bare=True),
    ),
    copies={f"{side}.embed_tokens.weight": "shared.weight" for side in ("encoder", "decoder")},
    ignored=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
)


def _bart_rows(side: str) -> dict[str, str]:
    theirs, ours = f"{side}.layers.{{}}", f"{side}.blocks.{{}}"
    rows = {
        f"{side}.layernorm_embedding.*": f"{side}.embedding.norm.*",
        f"{theirs}.fc1.*": f"{ours}.feed_forward.layer.up.*",
        f"{theirs}.fc2.*": f"{ours}.feed_forward.layer.down.*",
        f"{theirs}.final_layer_norm.*": f"{ours}.feed_forward.after.*",
    }
    for inner, name in {"self_attn": "attention", "encoder_attn": "cross"}.items():
        rows[f"{theirs}.{inner}_layer_norm.*"] = f"{ours}.{name}.after.*"
        for of_theirs, of_ours in {"q_proj": "q", "k_proj": "k", "v_proj": "v"}.items():
            rows[f"{theirs}.{inner}.{of_theirs}.*"] = f"{ours}.{name}.layer.{of_ours}.*"
        rows[f"{theirs}.{inner}.out_proj.*"] = f"{ours}.{name}.layer.o.*"
    return rows


def _bart_table(architecture: str, bare: str, positions: str, ignored: tuple[str, ...]) -> Table:
    places = {
        f"{side}.embed_positions.weight": f"{side}.embedding.positions.weight"
        for side in ("encoder", "decoder")
    }
    labelled = ()
    if positions == "learned":
        labelled = (Form("BartForSequenceClassification", ("pooler", "classifier"), _LABELS),)
    output = (
        Rule("lm_head.weight", OUTPUT),
        Rule("final_logits_bias", "heads.output_bias", "row", optional=True),
    )
    return Table(
        prefix="model.",
        body=_rules(
            {
                "shared.weight": "tokens.weight",
                **(places if positions == "learned" else {}),
                **_bart_rows("encoder"),
                **_bart_rows("decoder"),
            }
        ),
        forms=(Form(architecture, ("language",), output), *labelled, Form(bare, bare=True)),
        copies={f"{side}.embed_tokens.weight": "shared.weight" for side in ("encoder", "decoder")},
        ignored=ignored + (tuple(places) if positions == "sinusoidal" else ()),
    )


_VERSIONS = ("encoder.version", "decoder.version")
BART = _bart_table("BartForConditionalGeneration", "BartModel", "learned", _VERSIONS)
MARIAN = _bart_table("MarianMTModel", "MarianModel", "sinusoidal", _VERSIONS)

TABLES = {
    "bert": BERT,
    "roberta": ROBERTA,
    "distilbert": DISTILBERT,
    "modernbert": MODERNBERT,
    "eurobert": EUROBERT,
    "openai-gpt": GPT1,
    "gpt2": GPT2,
    "llama": _decoder_table("Llama"),
    "mistral": _decoder_table("Mistral"),
    "qwen2": _decoder_table("Qwen2"),
    "qwen3": _decoder_table("Qwen3"),
    "t5": T5,
    "bart": BART,
    "marian": MARIAN,
}
