"""Small chat templates in the formats that model families publish, and tokenizers for them.

Each says by {% generation %} what is learned; without these tags it is as most models ship theirs.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENERATION = re.compile(r"(\{%-? *)(end)?generation")

CHATML_WITH_DEFAULT = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\\n' }}
    {%- if m.role == 'assistant' %}
        {%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- m.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

THINKING = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for m in messages[::-1] %}
    {%- if ns.last == messages|length - 1 and m.role == 'user' %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
    {%- elif m.role == 'assistant' %}
        {%- set content, thought = m.content, '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- content }}
        {%- endif %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

INSTRUCTIONS = """\
{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\\n' + messages[0]['content'] + \
'\\n<</SYS>>\\n\\n' %}{% set turns = messages[1:] %}{% else %}{% set system = '' %}\
{% set turns = messages %}{% endif %}{% for m in turns %}{% if (m['role'] == 'user') != \
(loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}\
{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + \
m['content'].strip() + ' [/INST]' }}{% else %}{% generation %}{{ ' ' + m['content'].strip() + ' ' \
+ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"""

HEADERS = """\
{{- bos_token }}
{%- for m in messages %}
    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if m['role'] == 'assistant' %}
        {%- generation %}{{- m['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}
    {%- else %}
        {{- m['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

SYSTEM_LAST = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for m in turns %}
    {%- if m['role'] == 'user' %}
        {%- if loop.index0 >= turns|length - 2 and system is defined %}
            {{- '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST] ' + m['content'] + '[/INST]' }}
        {%- endif %}
    {%- else %}
        {%- generation %}{{- ' ' + m['content']|trim + eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}"""

TURNS = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{% set first = messages[0]['content'] | trim + '\\n\\n' %}{% set turns = messages[1:] %}\
{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}\
{% if m['role'] == 'assistant' %}{{ '<start_of_turn>model\\n' }}{% generation %}\
{{ m['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{{ '\\n' }}{% else %}\
{{ '<start_of_turn>' + m['role'] + '\\n' + (first if loop.first else '') + m['content'] | trim + \
'<end_of_turn>\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}\
{{ '<start_of_turn>model\\n' }}{% endif %}"""

LINES = """\
{% for m in messages %}
{% if m['role'] == 'assistant' %}
{{ '<|assistant|>\\n' }}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}
{% else %}
{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

STRIPPING = """\
{% for m in messages %}{% if m['role'] == 'assistant' %}{{'<|assistant|>\\n'}}{% generation %}\
{{ m['content'] + '<|end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{'<|' + m['role'] + '|>\\n' \
+ m['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

OPEN_THOUGHT = """\
{%- set ns = namespace(system='') %}
{%- for m in messages %}{%- if m.role == 'system' %}{%- set ns.system = m.content %}{%- endif %}
{%- endfor %}{{- bos_token + ns.system }}
{%- for m in messages %}
    {%- if m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- endif %}
    {%- if m.role == 'assistant' %}
        {{- '<｜Assistant｜>' }}
        {%- generation %}{{- m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}
        {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜><think>\\n' }}{%- endif %}"""

SPOKEN = """\
{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}
{%- set turns = messages[1:] %}{%- else %}{{- 'A chat.' }}{%- set turns = messages %}{%- endif %}
{%- for m in turns %}
    {%- if m['role'] == 'user' %}{{- ' USER: ' + m['content'] + ' ASSISTANT:' }}
    {%- else %}{%- generation %}{{- ' ' + m['content'] + eos_token }}{%- endgeneration %}
    {%- endif %}
{%- endfor %}"""

CAPITALS = """\
{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}\
{% if m['role'] == 'assistant' %}{{ '<|CHATBOT_TOKEN|>' }}{% generation %}\
{{ m['content'].strip() + '<|END_OF_TURN_TOKEN|>' }}{% endgeneration %}\
{% else %}{{ '<|' + m['role']|upper + '_TOKEN|>' + m['content'] + '<|END_OF_TURN_TOKEN|>' }}\
{% endif %}{% endfor %}{% if add_generation_prompt %}\
{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"""


@dataclass(frozen=True)
class Family:
    """special: tokens beside <s> and </s>; those in `swallowing` take the blanks behind them along.
    plain: tokens that are added but not special."""

    template: str
    special: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    swallowing: bool = False

    @property
    def unmarked(self) -> str:
        """The same text, with nothing said of what is learned."""
        return GENERATION.sub(
            lambda tag: tag[1] + ("endif" if tag[2] else "if true"), self.template
        )


TURN = ("<|im_start|>", "<|im_end|>")
THOUGHT = ("<think>", "</think>")
FAMILIES = {
    "qwen2.5": Family(CHATML_WITH_DEFAULT, TURN),
    "qwen3": Family(THINKING, TURN, THOUGHT),
    "llama2": Family(INSTRUCTIONS),
    "llama3": Family(HEADERS, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "mistral": Family(SYSTEM_LAST, ("[INST]", "[/INST]")),
    "gemma": Family(TURNS, ("<start_of_turn>", "<end_of_turn>")),
    "zephyr": Family(LINES),
    "phi3": Family(
        STRIPPING, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), swallowing=True
    ),
    "deepseek": Family(
        OPEN_THOUGHT, ("<｜end▁of▁sentence｜>",), ("<｜User｜>", "<｜Assistant｜>", *THOUGHT)
    ),
    "vicuna": Family(SPOKEN),
    "command-r": Family(
        CAPITALS,
        (
            *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"),
            *("<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>"),
        ),
    ),
}

WORDS = (
    *(
        "the cat",
        "Sat on",
        "a mat.",
        "don't",
        "1234",
        "3.14",
        "—",
        "naïve",
        "中文字",
        "👩‍👩‍👧",
        "e\u0301",
    ),
    *(
        "\n",
        "\n\n",
        "  ",
        "\t",
        "x < y",
        "a > b",
        "<",
        ">",
        "|",
        "[x]",
        "{{ y }}",
        "```py\n",
        "</p>",
    ),
    *("user", "assistant", "system", "INST", "s", "</", "end", "\u00a0", "\ufdd0", "\U000f0000"),
)


def content(draw: random.Random, forbidden: tuple[str, ...]) -> str:
    """A text that spells none of the forbidden ones."""
    while True:
        parts = [draw.choice(WORDS) for _ in range(draw.randrange(1, 9))]
        text = draw.choice(["", " ", " "]).join(parts)
        if text.strip() and not any(token in text for token in forbidden):
            return text


def conversations(family: Family, count: int, *, seed: int = 1) -> list[list[dict[str, str]]]:
    """The same random conversations every time, of one to four turns, half with a system message;
    where a family thinks, so do some answers."""
    draw = random.Random(seed)
    forbidden = ("<s>", "</s>", "<unk>", *family.special, *family.plain)
    found = []
    for _ in range(count):
        system = [{"role": "system", "content": content(draw, forbidden)}]
        messages = system if draw.random() < 0.5 else []
        for _ in range(draw.randrange(1, 5)):
            answer = content(draw, forbidden)
            if family.plain and draw.random() < 0.4:
                answer = f"<think>\n{content(draw, forbidden)}\n</think>\n\n{answer}"
            messages.append({"role": "user", "content": content(draw, forbidden)})
            messages.append({"role": "assistant", "content": answer})
        found.append(messages)
    return found


def write(base: Any, family: Family, template: str, folder: Path) -> Any:
    """A tokenizer of `transformers` with a family's tokens and a template, saved; opened again."""
    from transformers import AddedToken, AutoTokenizer

    base.add_special_tokens(
        {
            "extra_special_tokens": [
                AddedToken(token, rstrip=family.swallowing, normalized=False)
                for token in family.special
            ]
        }
    )
    base.add_tokens([AddedToken(token, normalized=False) for token in family.plain])
    base.chat_template = template
    base.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)
