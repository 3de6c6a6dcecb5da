#!/usr/bin/env python3
"""Chat templates: `pdt tokenize --chat` against transformers' apply_chat_template.

usage: chat.py PDT                       texts and ids as recorded in tests/data/chat/expected.json
       chat.py PDT --fresh [--count N] [--seed S]
                                         transformers asked anew, of N random templates as well
       chat.py --record                  make tests/data/chat/expected.json anew

Templates of our own for the formats of model families (tests/data/chat/*.jinja) render conversations, and
small ones each part of the language, among them what is refused. Texts must be equal byte for byte, ids
too, of the small tokenizers and, where it is here, of the real one of SmolLM2 (PDT_TEST_SMOLLM2, by default
~/.cache/pdt/smollm2). So must be the texts of published models' templates: SmolLM2's in that folder, and
those in the archive of llama-cpp-python that bench/against keeps in $PDT_CACHE (~/.cache/pdt), whose texts
are recorded by their SHA-256. Nothing is fetched, and what is not here is named. Of a random template, pdt may refuse what it does not support, by
name; what it renders must be what transformers renders. Then the commands: decode, eval and data with
--chat, --system and messages. Status 77: transformers is not here (PDT_HF_PYTHON names a Python that has
it).
"""
import argparse
import datetime
import glob
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tarfile
import tempfile
import warnings

import gguf_writer
import harness

DATA = os.path.join(harness.TESTS, "data", "chat")
EXPECTED = os.path.join(DATA, "expected.json")
REAL = os.environ.get("PDT_TEST_SMOLLM2") or os.path.expanduser("~/.cache/pdt/smollm2")
ARCHIVE = os.path.join(os.environ.get("PDT_CACHE") or os.path.expanduser("~/.cache/pdt"), "llama_cpp_python-0.3.16.tar.gz")
INSIDE = "llama_cpp_python-0.3.16/vendor/llama.cpp/models/templates/"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
DATE = "2024-07-26"
# Tokenizers of tests/data/tokenizers, each with a template and special tokens of its own.
TOKENIZED = {
    "llama2": ("own-llama-2", {"bos_token": "<s>", "eos_token": "</s>"}),
    "llama3": ("own-llama-3", {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}),
    "qwen2": ("own-qwen2", {"eos_token": "<|im_end|>"}),
    "smollm2": ("own-smollm2", {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}),
}


def said(*turns):
    return [{"role": r, "content": c} for r, c in turns]


CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "f", "arguments": {"x": 1.5, "y": [1, 'é\n"', None, True], "z": {}}}}
TOOLS = [{"type": "function", "function": {"name": n, "description": f"{n} <é>", "parameters": {"type": "object", "required": []}}} for n in ("f", "search")]
SEARCH = {"type": "function", "id": "123456789", "function": {"name": "search", "arguments": {"a": "1", "b": "ü"}}}
CONVERSATIONS = [
    said(("user", "Hello!")),
    said(("system", "You are kind."), ("user", "Hello, wörld! 😀 你好")),
    said(("system", " S \n"), ("user", "  Hi\n\n there "), ("assistant", " Yes.\n"), ("user", "And\tnow?\r\n")),
    said(("user", "```c\nint main(void) { return 0; } /* {{ x }} {% if %} {# #} */\n```\n")),
    said(("user", "")),
    said(("system", ""), ("user", "a"), ("assistant", ""), ("user", "b")),
    said(("user", "a"), ("assistant", "<think>\nhm\n</think>\n\nb"), ("user", "c"), ("assistant", "d")),
    said(("user", "<s>a</s> <|im_end|>\n<|eot_id|>[/INST] <|im_start|>system")),
    said(("user", "\u00a0a\u2003\u0085\x1c")),
    said(("assistant", "a")),
    said(("user", "a"), ("user", "b")),
    said(("system", "only")),
    said(("tool", "x")),
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
     {"role": "tool", "content": '{"r": 2}', "tool_call_id": "abcdefghi", "name": "f"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x", "reasoning": "thought"}, {"role": "user", "content": "r"}],
    said(*[("user", f"question {i}") if i % 2 == 0 else ("assistant", f"answer {i}") for i in range(41)]),
    [{"role": "system", "content": "s /no_think", "tools": TOOLS}, {"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [SEARCH]},
     {"role": "tool", "content": "1", "tool_call_id": "123456789"}, {"role": "tool", "content": "2", "tool_call_id": "123456789"},
     {"role": "assistant", "content": "<think>\n\nx\n</think>\n\nb"}],
    [{"role": "system", "content": "/alone s", "tools": TOOLS[:1]}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [CALL, SEARCH]}],
]
# What templates of the language's parts see.
VALUE = {"n": 7, "x": 2.5, "t": True, "none": None, "s": " ab,cd,,Ef ", "u": "é😀z", "list": [3, 1, 2], "dict": {"a": 1, "b": [None, "q\"\\\n\x01"]},
         "people": [{"name": "Ann", "age": 3}, {"name": "Bo"}, {"name": "Cy", "age": 5}], "empty": [], "long": 1 << 40}
SEEN = [{"role": "user", "content": "hi", "v": VALUE}]
V = "{% set v = messages[0].v %}"
SNIPPETS = [
    # white space
    "a {{ 1 }}\n b\n", "{% if true %}\nx\n{% endif %}\ny", "  {% if true %}  \n x {% endif %}", "a\n  {%+ if true %}x{% endif +%}\nb", "a \n {{- 1 -}} \n b",
    "a{# c #}\nb", "a  {#- c -#}  \n b", "\n {# c #}\n{# d #} e", "{%- if true -%} x {%- endif -%} y", "a\r\nb\rc\n\n", "{{ 'a\r\nb' }}", "x{% set a = 1 %}\n\ny", "\n", "",
    "a\u00a0{%- if true %}b{% endif %}", "{{ {'a': {'b': 1}}['a']['b'] }}", "{{ '}}' }}{{ '%}' }}", "{ {a} {", "a {% if true %}b\n  {% endif %}c", "{{- '' +}}",
    # literals
    r"{{ 'a\n\t\\\'\"\x41\u00e9\101\q' }}", "{{ 'a' \"b\" 'c' }}", "{{ 1.5 }} {{ 2.0 }} {{ 1e20 }} {{ 1.5e-7 }} {{ 12 }}", "{{ True }} {{ none }} {{ false }}", "{{ (1) }} {{ () | length }} {{ (1,) | length }}",
    "{{ [1, 'a',][1] }} {{ {'a': 1,}.a }}", "{{ 007 }}", "{{ 0x1f }}", "{{ 'a }}", "{{ 99999999999999999999 }}",
    # operators
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 - 1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}", "{{ 1 + 2 ~ 3 + 4 }}", "{{ 'a' + 'b' | upper }}", "{{ 'a' ~ 1 ~ none ~ nothing ~ true }}",
    "{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' < 'b' }} {{ 1 != 2 }}", "{{ not 1 == 2 }} {{ not not 1 }} {{ 1 and 0 or 'x' }} {{ '' or none }}", "{{ 'a' if 0 else 'b' }} {{ 'a' if 0 }}|", "{{ -3 | abs }}",
    "{{ 1 if 0 else 2 if 0 else 3 }}", V + "{{ 2 in v.list }} {{ 'a' in v.dict }} {{ 'ab' in v.s }} {{ 9 not in v.list }} {{ '' in '' }} {{ 1 in nothing }}", "{{ 'a' + 1 }}", "{{ nothing + 1 }}", "{{ 1 / 0 }}", "{{ 2 ** 3 }}",
    "{{ '%s' % 1 }}", "{{ 'a' * 3 }}", "{{ [1] + [2, 3] == [1, 2, 3] }} {{ (1, 2) == [1, 2] }}", "{{ 1 < 'a' }}", "{{ -true }} {{ +true }} {{ - 3 + 5 }}", "{{ true + true }}", "{{ 9223372036854775807 + 1 }}",
    # access
    V + "{{ v.dict.a }} {{ v['dict']['a'] }} {{ v.nothing }}| {{ v.list.0 }} {{ v.list[-1] }} {{ v.list[5] }}|", V + "{{ v.nothing.more }}", "{{ nothing.x }}", V + "{{ v.list[1:] | tojson }} {{ v.list[::-1] | tojson }} {{ v.list[:-1] | tojson }} {{ v.list[0:2:2] | tojson }}",
    V + "{{ v.u[1] }} {{ v.u[::-1] }} {{ v.u[1:] }} {{ v.u[-2:] }} {{ v.s[3:-2:2] }} {{ v.u[5:] }}| {{ v.list[-9:9] | length }} {{ v.list[9:1:-1] | length }}", V + "{{ v.s.nothing is defined }} {{ none.x is defined }} {{ 1 .x is defined }}",
    V + "{{ v.items }}", V + "{{ v.s.strip }}", V + "{{ v.list[::0] }}", V + "{{ v.n[0] is defined }} {{ v.list['a'] is defined }} {{ v.dict[0] is defined }}", "{{ ''.__class__ }}", V + "{{ v.list[0, 1] }}",
    # statements
    "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}",
    "{% for x in range(6) if x % 2 %}{{ x }}{{ loop.last }}{% endfor %}", "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% elif x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}", V + "{% for k, w in v.dict.items() %}{{ k }}={{ w | tojson }},{% endfor %}", V + "{% for k in v.dict %}{{ k }}{% endfor %}",
    "{% set a = 1 %}{% for x in [1, 2] %}{{ a }}{% set a = 9 %}{{ a }}{% endfor %}{{ a }}", "{% if 1 %}{% set a = 1 %}{% endif %}{{ a }}", "{% set ns = namespace(a=1) %}{% for x in [1, 2] %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}{{ ns.b }}|", "{% set a %}x{{ 1 }}{% endset %}{{ a + 'y' }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }}{% endfor %}", "{% for x in nothing %}a{% endfor %}b", "{% for x in none %}{% endfor %}", "{% for x in 'éa' %}{{ x }}.{% endfor %}", "{% set x.a = 1 %}", "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "{% macro m(a, b='d') %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m() ~ 'x' }}", "{% macro m(a) %}{% if a %}{{ a }}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ m(5) }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "a{% generation %}b{% set c = 1 %}{% endgeneration %}{{ c }}|", "{% if 0 %}{% elif 1 %}b{% else %}c{% endif %}", "{% for x in [[1], [2]] %}{% for y in x %}{{ loop.index }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for loop in [1] %}{{ loop }}{% endfor %}",
    "{% include 'x' %}", "{% raw %}a{% endraw %}", "{% with a = 1 %}{{ a }}{% endwith %}", "{% filter upper %}a{% endfilter %}", "{% call m() %}{% endcall %}", "{% for x in [1] recursive %}{% endfor %}", "{% break %}", "{% endif %}", "{% if 1 %}", "{{ 1", "{# a", "{% if 1 }}", "{{ ] }}", "{{ (1] }}", "{{ }}", "{{ 1 2 }}", "{{ é }}", "{% %}",
    # filters
    V + "{{ v.s | trim }}|{{ v.s | trim(' a') }}|{{ v.s | upper }}|{{ v.s | trim | capitalize }}|{{ v.n | string + 'x' }}|{{ 1 | trim }}", V + "{{ v.u | length }}{{ v.list | length }}{{ v.dict | count }}{{ nothing | length }}", V + "{{ v.n | length }}", V + "{{ v.list | first }}{{ v.list | last }}{{ v.empty | first }}|",
    V + "{{ v.people | map(attribute='name') | join(', ') }}", V + "{{ v.people | selectattr('age') | map(attribute='name') | list | tojson }}{{ v.people | selectattr('age', 'undefined') | map(attribute='name') | join }}{{ v.people | rejectattr('name', 'equalto', 'Bo') | list | length }}",
    V + "{{ v.people | selectattr('age', 'gt', 3) | list | length }}", V + "{{ v.people | selectattr('age', 'defined') | length }}", V + "{{ v.list | select('odd') | join('-') }}{{ v.list | reject('odd') | join('-') }}{{ ['a', 'b'] | map('upper') | join }}", "{{ none | selectattr('a') | list | length }}", V + "{{ v.people | join('+', attribute='name') }}",
    V + "{{ v.list | reverse | list | tojson }}{{ 'abc' | reverse }}", "{{ nothing | default('x') }}{{ '' | default('x') }}|{{ '' | d('x', true) }}{{ none | default('x') }}", V + "{{ v.s | replace('c', 'XX') | replace('', '-', 2) }}{{ 'aaa' | replace('a', 'b', 2) }}", V + "{% for k, w in v.dict | items %}{{ k }}{% endfor %}", "{{ [1, none, 'a'] | join(1) }}",
    V + "{{ v | tojson }}", V + "{{ v.dict | tojson(indent=2) }}\n{{ [] | tojson(indent=4) }}{{ {} | tojson }}", V + "{{ v.u | tojson(ensure_ascii=true) }}{{ v.dict | tojson(sort_keys=true) }}", "{{ nothing | tojson }}", "{{ 'x' | nonsense }}", "{{ '<a>' | safe }}", "{{ 'a b' | indent }}{{ 'a\nb' | indent(2) }}", V + "{{ v.long }} {{ '3' | int }}",
    "{% set g = [1, 2] | map('string') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% endfor %}", "{{ 'x' if [] | select else 'y' }}", "{{ ([] | select) | length }}", "{{ 'é' | upper }}", "{{ [1] }}",
    # tests
    V + "{% for x in [v.n, v.x, v.t, v.none, v.s, v.list, v.dict, nothing, (1,)] %}{{ x is defined }}{{ x is none }}{{ x is string }}{{ x is number }}{{ x is integer }}{{ x is float }}{{ x is boolean }}{{ x is mapping }}{{ x is iterable }}{{ x is sequence }}{{ x is true }}{{ x is false }}\n{% endfor %}",
    "{{ 3 is odd }}{{ 4 is even }}{{ 6 is divisibleby 3 }}{{ 6 is divisibleby(4) }}{{ 'a' is in ['a'] }}{{ 1 is eq 1 }}{{ 1 is not none }}{{ true is sameas true }}{{ 2 is gt 1 }}", "{{ 1 is nonsense }}", "{{ nothing is not defined and true }}", "{{ 1 is defined is defined }}", "{{ 1 + 1 is defined }}",
    # methods and functions
    V + "{{ v.s.strip() }}|{{ v.s.lstrip() }}|{{ v.s.rstrip() }}|{{ v.s.strip().split(',') | tojson }}{{ v.s.split() | tojson }}{{ v.s.split(',', 1) | tojson }}{{ v.s.rsplit(',', 1) | tojson }}{{ ' a  b c '.split(none, 1) | tojson }}{{ ''.split(',') | tojson }}{{ ''.split() | tojson }}",
    V + "{{ v.s.startswith(' a') }}{{ v.s.endswith(('x', 'f ')) }}{{ v.s.find('cd') }}{{ v.u.find('z') }}{{ v.s.find('zz') }}{{ v.s.count(',') }}{{ ','.join(['a', 'b']) }}{{ v.s.replace(',', ';', 1) }}{{ v.s.upper() }}{{ 'it\\'s a DAY'.title() }}{{ 'aBC d'.capitalize() }}{{ 'xaxbx'.strip('x') }}",
    V + "{{ v.dict.get('a') }}{{ v.dict.get('z') }}{{ v.dict.get('z', 5) }}{{ v.dict.keys() | list | tojson }}{{ v.dict.values() | list | length }}", V + "{{ v.list.append(1) }}", "{{ 'a'.format() }}", "{{ 'a'.strip(chars='a') }}", "{{ 'a'.split('') }}", "{{ 'a'.nonsense() }}", "{{ ','.join([1]) }}", "{{ nothing() }}", "{{ 1() }}",
    "{{ range(3) | list | tojson }}{{ range(1, 9, 3) | list | tojson }}{{ range(3, 0, -1) | list | tojson }}{{ range(5, 1) | list | tojson }}", "{{ range(1000000) }}", "{{ dict(a=1).a }}{{ {'a': 1} == dict(a=1) }}", "{{ raise_exception('no, ' ~ 5) }}", "{{ strftime_now('%d %b %Y') }} {{ strftime_now is defined }}{{ tools is none }}{{ documents is none }}", "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ add_generation_prompt }}",
    "{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}", "{% set ns = namespace(a='0123456789') %}{% for x in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}", "{{ " + "(" * 200 + "1" + ")" * 200 + " }}", "{{ " + " + ".join(["1"] * 2000) + " }}", "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{% set ns = namespace(a=[]) %}{% for x in range(200) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a | tojson }}",
]
# What jinja2 renders and pdt does not support, as jinja.h says; a limit refuses the last ones.
UNSUPPORTED = re.compile(r"not supported|is supported|too much work|more than|nested deeper|of a value of type|beyond 64 bits|has no items|has no slices|unexpected character|'\w+' is missing|escape that names")

# ------------------------------------------------------------------ with transformers


def import_transformers():
    # tests/requests.py must not stand for the package of that name.
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != harness.TESTS]
    os.environ.update(TRANSFORMERS_VERBOSITY="critical", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore")  # Python's, of what random templates become
    try:
        import jinja2  # noqa: F401
        import transformers
        from transformers.utils import chat_template_utils
    except ImportError as e:
        other = os.environ.get("PDT_HF_PYTHON")
        if other and not os.environ.get("PDT_HF_TRIED"):
            os.execve(other, [other, *sys.argv], dict(os.environ, PDT_HF_TRIED="1"))
        harness.skip(f"no transformers with jinja2 here ({e}; PDT_HF_PYTHON names a Python that has them)")

    if not hasattr(chat_template_utils, "_alias_reasoning_fields"):
        harness.skip(f"transformers {transformers.__version__} gives messages to templates in another way (recorded: 5.24)")

    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(DATE + "T12:00")

    chat_template_utils.datetime = Fixed
    return transformers


def applied(tokenizer, template, messages, tokenize=False):
    """What apply_chat_template gives; None where it refuses."""
    try:
        out = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=tokenize, add_generation_prompt=True)
        if not tokenize and " at 0x" in out:
            return None  # Python's address of an object
        return out["input_ids"] if tokenize else out
    except Exception:  # jinja2's, or Python's in the template
        return None


def plain_tokenizer(transformers):
    from tokenizers import Tokenizer, models

    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **TOKENS)


def record(transformers):
    tokenizer = plain_tokenizer(transformers)
    out = {"date": DATE, "families": {}, "snippets": [], "published": {}, "ids": {}}
    for name, text in families().items():
        out["families"][name] = [applied(tokenizer, text, c) for c in CONVERSATIONS]
    # jinja2 has no limits of its own: those templates would not end.
    endless = [s for s in SNIPPETS if "range(99" in s]
    out["snippets"] = [[s, None if s in endless else applied(tokenizer, s, SEEN)] for s in SNIPPETS]
    for name, text in published().items():
        texts = [applied(tokenizer, text, c) for c in CONVERSATIONS]
        if any(texts):  # some are for tools alone
            out["published"][name] = {"template": digest(text), "texts": texts}
    for name, (family, tokens) in TOKENIZED.items():
        path = os.path.join(harness.TESTS, "data", "tokenizers", name, "tokenizer.json")
        own = transformers.PreTrainedTokenizerFast(tokenizer_file=path, **tokens)
        out["ids"][name] = [applied(own, families()[family], c, True) for c in CONVERSATIONS]
    if os.path.isdir(REAL):
        own = transformers.AutoTokenizer.from_pretrained(REAL)
        out["real"] = [applied(own, None, c, True) for c in CONVERSATIONS]
    return out


def to_keep(recorded):
    """What may stand in the repository: of texts that others wrote, the beginning of their SHA-256."""
    for place in (ARCHIVE, REAL):
        if not os.path.exists(place):
            sys.exit(f"chat.py --record: {place} is not here, of which something is recorded")
    for entry in recorded["published"].values():
        entry["sha256"] = [None if text is None else beginning(text) for text in entry.pop("texts")]
    return recorded


def by_line(value, levels):
    """JSON with a line for each value so many levels down."""
    if levels == 0 or not isinstance(value, (dict, list)) or not value:
        return json.dumps(value)
    if isinstance(value, list):
        return "[\n" + ",\n".join(by_line(x, 0) for x in value) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(k)}: {by_line(x, levels if isinstance(x, list) else levels - 1)}" for k, x in value.items()) + "\n}"


# ------------------------------------------------------------------ with pdt


def families():
    out = {}
    for path in sorted(glob.glob(os.path.join(DATA, "*.jinja"))):
        with open(path, encoding="utf-8", newline="") as f:
            out[os.path.basename(path)[: -len(".jinja")]] = f.read()
    return out


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def beginning(text):
    return digest(text)[:16]


def published():
    """The templates of published models that are here, by name; of equal ones one."""
    out = {}
    if os.path.exists(ARCHIVE):
        with tarfile.open(ARCHIVE) as archive:
            for name in archive.getnames():
                if name.startswith(INSIDE) and name.endswith(".jinja"):
                    text = archive.extractfile(name).read().decode()
                    out |= {name[len(INSIDE) : -len(".jinja")]: text} if text not in out.values() else {}
    config = os.path.join(REAL, "tokenizer_config.json")
    if os.path.exists(config):
        with open(config, encoding="utf-8") as f:
            text = json.load(f).get("chat_template")
        out |= {"SmolLM2": text} if isinstance(text, str) else {}
    return out


class Program:
    def __init__(self, pdt, scratch):
        self.pdt, self.folder = pdt, scratch

    def model(self, template, tokens=None, tokenizer=None):
        with open(os.path.join(self.folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump({**(tokens or TOKENS), "chat_template": template}, f)
        path = os.path.join(self.folder, "tokenizer.json")
        if os.path.lexists(path):
            os.unlink(path)
        if tokenizer:
            os.symlink(os.path.join(harness.TESTS, "data", "tokenizers", tokenizer, "tokenizer.json"), path)
        return self.folder

    def ask(self, folder, conversations, *flags):
        """A line of JSON for each conversation, or the message that one is refused with."""
        lines = "".join(json.dumps(c) + "\n" for c in conversations).encode()
        run = harness.run([self.pdt, "tokenize", "--model", folder, "--chat", "--date", DATE, *flags], stdin=lines, timeout=120)
        if run.status == 1 and run.err.startswith("pdt tokenize: ") and run.err.count("\n") == 1:
            return run.err.strip()
        if run.status or run.err:
            raise harness.Failed(f"status {run.status}: {run.err[:300]}")
        return [json.loads(line) for line in run.out.split("\n")[:-1]]


def compare(program, folder, name, wanted, *flags, seen=lambda got: got):
    """Conversations that are rendered in one run, those that are refused each in its own; `seen`: what of a text is compared."""
    bad = 0
    good = [i for i, w in enumerate(wanted) if w is not None]
    got = program.ask(folder, [CONVERSATIONS[i] for i in good], *flags)
    for i, mine in zip(good, got if isinstance(got, list) else [got] * len(good), strict=True):
        if seen(mine) != wanted[i]:
            bad += 1
            print(f"{name}: conversation {i}:\n  pdt          {mine!r:.500}\n  transformers {wanted[i]!r:.500}")
    for i in set(range(len(wanted))) - set(good):
        got = program.ask(folder, [CONVERSATIONS[i]], *flags)
        if isinstance(got, list):
            bad += 1
            print(f"{name}: conversation {i}: transformers refuses it, pdt renders {got!r:.300}")
    return bad


def compare_snippet(program, template, want, messages=None):
    """(differs, refused)"""
    got = program.ask(program.model(template), [messages or SEEN], "--text")
    refused = isinstance(got, str)
    if refused and not re.search(r"chat_template: (line \d+: |expected)", got):
        print(f"{template!r:.300}: no line: {got}")
        return True, True
    if refused and (want is None or UNSUPPORTED.search(got)):
        return False, True
    if not refused and want is not None and got[0] == want:
        return False, False
    print(f"{template!r:.400}:\n  pdt          {got if refused else got[0]!r:.500}\n  transformers {want!r:.500}")
    return True, refused


def compare_published(program, expected):
    """(of how many texts, how many differ)"""
    bad = n = 0
    here = published()
    if not os.path.exists(ARCHIVE):
        print(f"not compared: published models' templates in {ARCHIVE}, which is not here")
    missing = [name for name, entry in expected.items() if digest(here.get(name, "")) != entry["template"]]
    if missing:
        print(f"not compared: templates that are not here as they were recorded: {', '.join(missing)}")
    for name in sorted(expected.keys() - set(missing)):
        entry = expected[name]
        wanted, seen = (entry["texts"], str) if "texts" in entry else (entry["sha256"], beginning)
        bad += compare(program, program.model(here[name]), name, wanted, "--text", seen=seen)
        n += len(wanted)
    print(f"{n - bad} of {n} texts of {len(expected) - len(missing)} published templates")
    return n, bad


def compare_all(program, expected):
    n, bad = compare_published(program, expected["published"])
    refused = 0
    for name, texts in expected["families"].items():
        bad += compare(program, program.model(families()[name]), name, texts, "--text")
        n += len(texts)
    for template, want in expected["snippets"]:
        differs, no = compare_snippet(program, template, want)
        bad, n, refused = bad + differs, n + 1, refused + (no and want is not None)
    for name, ids in expected["ids"].items():
        family, tokens = TOKENIZED[name]
        bad += compare(program, program.model(families()[family], tokens, name), f"ids of {name}", ids)
        n += len(ids)
    if os.path.isdir(REAL) and "real" in expected:
        bad += compare(program, REAL, "ids of SmolLM2", expected["real"])
        n += len(expected["real"])
    else:
        print(f"not compared: {REAL}, which is not here")
    print(f"{n - bad} of {n} as transformers has it, {refused} of them templates that pdt does not support and names")
    return bad == 0


# ------------------------------------------------------------------ the commands

DEFAULT = os.path.join(harness.ROOT, "launch", "model")
SAY = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


class Commands:
    """Of the default model with a template that says no more than what a user says, all commands must give what they
    give without one."""

    def __init__(self, pdt, scratch):
        self.pdt, self.folder = pdt, scratch
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            os.symlink(os.path.join(DEFAULT, name), os.path.join(scratch, name))
        self.template(SAY)

    def path(self, name):
        return os.path.join(self.folder, name)

    def template(self, text):
        with open(self.path("tokenizer_config.json"), "w", encoding="utf-8") as f:
            json.dump({"bos_token": "<|bos|>", "chat_template": text}, f)

    def run(self, *words, status=0, ranks=0):
        run = harness.run([self.pdt, *words], ranks=ranks, timeout=120)
        if run.status != status:
            raise harness.Failed(f"{words}: status {run.status}, expected {status}: {run.err[:400]}")
        return run.err if status else run.out

    def decode(self, *words, **how):
        return self.run("decode", "--model", self.folder, "--sidecar", f"{DEFAULT}/sidecar.safetensors", "--max-tokens", "12", "--threads", "1",
                        "--json", "--section", "\nHistory:", "--section", "\nTrade:", *words, **how)

    def request(self, name="request.json", **fields):
        with open(self.path(name), "w", encoding="utf-8") as f:
            json.dump(fields, f)
        return "--request", self.path(name)

    def decodes(self):
        first, rest = "Describe Velmora.", " Sections: history; trade."
        plain = self.decode("--prompt", first + rest)
        same = {
            "--chat": self.decode("--prompt", first + rest, "--chat"),
            "--system": self.decode("--prompt", rest, "--system", first),
            "messages": self.decode(*self.request(messages=said(("user", first + rest)))),
            "messages with --system": self.decode(*self.request(messages=said(("user", rest))), "--system", first),
        }
        wrong = [name for name, out in same.items() if out != plain]
        if not wrong and self.decode("--prompt", first, "--chat") == plain:
            wrong = ["another conversation gives the same"]
        return f"another answer by {', '.join(wrong)}" if wrong else None

    def data(self):
        for kind in ((), ("--sequential",)):
            words = ("data", "atlas", "--count", 2, "--model", self.folder, "--out", "-", *kind)
            if self.run(*words) != self.run(*words, "--chat"):
                return f"other entries {kind}"
        out = self.path("chat.jsonl")
        self.template("{{ bos_token }}Sketch {{ messages[0].content }}")
        self.run("data", "atlas", "--count", 2, "--model", self.folder, "--out", out, "--chat")
        self.run("data", "check", "--model", self.folder, out)
        self.template(SAY)
        with open(out, encoding="utf-8") as f:
            entry = json.loads(f.read().split("\n")[1])
        return None if entry["prompt"].startswith("Sketch Describe ") else f"prompt {entry['prompt']!r}"

    def evals(self, ranks):
        data = self.path("data.jsonl")
        self.run("data", "atlas", "--count", 2, "--split", "test", "--plan-vocab", 1024, "--plan-salt", "atlas-5", "--out", data, "--overwrite")
        words = ("eval", "--model", self.folder, "--sidecar", f"{DEFAULT}/sidecar.safetensors", "--data", data, "--arms", "system", "--json", "--threads", "1")
        rows = [json.loads(self.run(*words, *flags, ranks=ranks)) for flags in (("--no-teacher",), ("--chat",), ("--system", "Sketch"))]
        figures = [{k: r[k] for k in ("judged", "readiness", "slots", "teacher_forced")} for r in rows]
        if figures[0] != figures[1]:
            return f"other figures: {figures[:2]}"
        twice = self.path("twice.jsonl")
        self.run("data", "atlas", "--count", 1, "--model", self.folder, "--plan-vocab", 1024, "--plan-salt", "atlas-5", "--out", twice, "--overwrite")
        with open(twice, encoding="utf-8") as f:
            header, entry = f.read().split("\n")[:2]
        with open(twice, "w", encoding="utf-8") as f:
            f.write(header + "\n" + entry.replace('"prompt":"', '"prompt":"<|end|>') + "\n")
        err = self.run(*[twice if w == data else w for w in words], "--chat", ranks=ranks, status=2)
        if "its prompts are conversations already" not in err:
            return err
        # The date that a template asks for is the same on all ranks.
        self.template(SAY + "{{ strftime_now('%S %Z')[99:] }}")
        self.run(*words, "--chat", ranks=ranks)
        self.template(SAY)
        return "the same figures behind a system message" if figures[2] == figures[0] else None

    def refusals(self):
        for words, status, want in (
            (("--chat", "--prompt", "x", "--model", DEFAULT), 1, "the model has no chat template"),
            (("--prompt", "x", "--chat", "--date", "x"), 2, "--date: expected a date as in 2026-07-31, found 'x'"),
            (self.request("none.json", messages=[]), 1, "none.json: messages: expected a list of at least one message"),
            (self.request(messages=said(("user", "x")), prompt_ids=[1]), 1, "expected messages or a prompt, found both"),
        ):
            err = self.decode(*words, status=status)
            if want not in err or err.count("\n") != 1:
                return f"{words}: {err}"
        self.template("{{ messages[0].content }}")  # without bos no text has the ids of the conversation
        err = self.run("data", "atlas", "--count", 1, "--model", self.folder, "--out", "-", "--chat", status=1)
        self.template(SAY)
        return None if "no text has the conversation's ids" in err else err

    def gguf(self):
        """A template in GGUF's metadata, with its tokens."""
        g = gguf_writer.Gguf()
        g.metadata = {
            "general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": ["a b"],
            "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "b", "ab"], "tokenizer.ggml.token_type": [3, 3, 1, 1, 1], "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1, "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        }
        asks = Program(self.pdt, self.folder)
        path = g.write(self.path("m.gguf"))
        got = asks.ask(path, [said(("user", "ab"))]), asks.ask(path, [said(("user", "b"))], "--text")
        if got != ([[0, 4, 1]], ["<s>b</s>"]):
            return f"{got}"
        del g.metadata["tokenizer.chat_template"]
        got = asks.ask(g.write(path), [said(("user", "ab"))])
        return None if "the model has no chat template" in got else f"{got}"


def check_commands(pdt, scratch):
    c = Commands(pdt, scratch)
    ranks = [0, 2] if shutil.which("mpirun") else [0]
    checks = {"decode": c.decodes, "data": c.data, "refusals": c.refusals, "gguf": c.gguf}
    checks |= {f"eval on {n or 1}": lambda n=n: c.evals(n) for n in ranks}
    bad = 0
    for name, check in checks.items():
        try:
            why = check()
        except harness.Failed as e:
            why = str(e)
        if why:
            bad += 1
            print(f"{name}: {why}")
    print(f"{len(checks) - bad} of {len(checks)} commands as they should be: {', '.join(checks)}")
    return bad == 0


# ------------------------------------------------------------------ random templates


class Maker:
    """Random templates of the parts that pdt supports, most of them sound."""

    NAMES = ("v.n", "v.x", "v.t", "v.none", "v.s", "v.u", "v.list", "v.dict", "v.people", "v.empty", "nothing", "a", "b", "messages", "loop.index0", "v.dict.b", "v.people[0].name")
    # map, select and the like are lazy in jinja2 and not in pdt (jinja.h): what fails in them fails at one place as a list.
    FILTERS = ("trim", "length", "upper", "string", "tojson", "list", "first", "last", "default('d')", "join('/')", "reverse", "lower", "map(attribute='name') | list", "selectattr('age') | list", "rejectattr('name', 'equalto', 'Bo') | list", "replace('a', 'bb')", "items | list", "select | list", "capitalize")
    TESTS = ("defined", "none", "string", "number", "mapping", "iterable", "sequence", "not none", "odd", "eq(1)", "in [1, 'a']", "boolean")
    METHODS = ("strip()", "split(',')", "upper()", "lstrip(' a')", "startswith('a')", "get('a')", "keys()", "items()", "replace('a', '')", "rsplit(',', 1)", "endswith('x')", "find('c')", "split()", "title()")
    SPACE = ("", "", " ", "\n", "\n  ", " \n", "  x\n", "y ")

    def __init__(self, rng):
        self.rng = rng

    def expression(self, depth=0):
        r, e = self.rng, lambda: self.expression(depth + 1)
        kind = r.randrange(14) if depth < 4 else r.randrange(3)
        if kind < 3:
            return r.choice((r.choice(self.NAMES), r.choice(self.NAMES), str(r.randrange(-3, 12)), repr(r.choice(("", "a", " b ", "ab,c", "\n"))), "true", "none", "[1, 'a']", "{'a': 1}"))
        if kind < 5:
            return f"{e()} {r.choice(('+', '-', '*', '/', '//', '%', '~', '~', '+'))} {e()}"
        if kind < 7:
            return f"{e()} {r.choice(('==', '!=', '<', '>=', 'in', 'not in', 'and', 'or'))} {e()}"
        if kind < 9:
            return f"{self.wrapped(depth)} | {r.choice(self.FILTERS)}"
        if kind == 9:
            return f"{self.wrapped(depth)} is {r.choice(self.TESTS)}"
        if kind == 10:
            return f"{self.wrapped(depth)}.{r.choice(self.METHODS)}"
        if kind == 11:
            return f"{self.wrapped(depth)}[{r.choice(('0', '-1', '1:', ':-1', '::-1', '::2', repr('a'), '-9:2'))}]"
        if kind == 12:
            return f"{e()} if {e()} else {e()}"
        return f"not {e()}"

    def wrapped(self, depth):
        text = self.expression(depth + 1)
        return text if re.fullmatch(r"[\w.]+|'[^']*'", text) and not text[0].isdigit() else f"({text})"

    def tag(self, text):
        r = self.rng
        return "{%" + r.choice(("", "", "-", "+")) + f" {text} " + r.choice(("", "", "-", "+")) + "%}"

    def output(self):
        text = self.expression()
        return "{{" + self.rng.choice(("", "-")) + f" {text if self.rng.random() < 0.3 else f'({text}) | tojson'} " + self.rng.choice(("", "-")) + "}}"

    def body(self, depth=0):
        r, parts = self.rng, []
        for _ in range(r.randrange(1, 4)):
            kind = r.randrange(8 if depth < 3 else 3)
            parts.append(r.choice(self.SPACE))
            if kind < 3:
                parts.append(self.output())
            elif kind == 3:
                parts.append(self.tag(f"if {self.expression(2)}") + self.body(depth + 1) + (self.tag("else") + self.body(depth + 1) if r.random() < 0.5 else "") + self.tag("endif"))
            elif kind < 6:
                where = f" if {self.expression(3)}" if r.random() < 0.2 else ""
                parts.append(self.tag(f"for a in {self.expression(3)}{where}") + self.body(depth + 1) + self.tag("endfor"))
            elif kind == 6:
                parts.append(self.tag(f"set {r.choice('ab')} = {self.expression(1)}"))
            else:
                parts.append("{#" + r.choice(("", "-")) + " c " + r.choice(("", "-")) + "#}")
        return "".join(parts) + r.choice(self.SPACE)


def compare_random(program, transformers, count, seed):
    tokenizer, maker = plain_tokenizer(transformers), Maker(random.Random(seed))
    bad = rendered = refused = 0
    while rendered < count and bad < 20:
        template = V + maker.body()
        want = applied(tokenizer, template, SEEN)
        if want is None and maker.rng.random() < 0.8:
            continue  # most random templates are of no use to jinja2 either
        differs, no = compare_snippet(program, template, want)
        bad, rendered, refused = bad + differs, rendered + (not no and not differs), refused + no
    print(f"seed {seed}: {rendered} random templates rendered as transformers renders them, {refused} refused, {bad} differ")
    return bad == 0 and rendered >= count


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pdt", nargs="?")
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--record", action="store_true")
    p.add_argument("--count", type=int, default=300)
    p.add_argument("--seed", type=int, default=None)
    a = p.parse_args()
    transformers = import_transformers() if a.fresh or a.record else None
    if a.record:
        text = by_line(to_keep(record(transformers)), 2) + "\n"
        with open(EXPECTED, "w", encoding="utf-8") as f:
            f.write(text)
        return
    if not a.pdt:
        p.error("no program given")
    with tempfile.TemporaryDirectory() as scratch:
        program = Program(os.path.abspath(a.pdt), scratch)
        if a.fresh:
            good = compare_all(program, record(transformers))
            good = compare_random(program, transformers, a.count, random.randrange(1 << 32) if a.seed is None else a.seed) and good
        else:
            with open(EXPECTED, encoding="utf-8") as f:
                good = compare_all(program, json.load(f))
            with tempfile.TemporaryDirectory() as other:
                good = check_commands(os.path.abspath(a.pdt), other) and good
    sys.exit(not good)


if __name__ == "__main__":
    main()
