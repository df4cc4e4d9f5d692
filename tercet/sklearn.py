"""Estimators of scikit-learn on texts: a fine-tuned classifier, and vectors of a frozen model.

They work in Pipeline, GridSearchCV, cross_val_score and clone, and are kept in folders, not in
pickles. How a model learns is jobs/finetune's, and what it says language_model's: this file only
turns lists into their rows, and their answers into arrays.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from tercet.errors import InputError, require, undamaged
from tercet.files import written_folder
from tercet.jobs import recipe as recipes
from tercet.jobs.finetune.classify import of_tables
from tercet.jobs.finetune.job import Job
from tercet.jobs.finetune.rows import Table
from tercet.jobs.finetune.settings import FinetuneRecipe
from tercet.language_model import LanguageModel, load

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        TransformerMixin,
    )
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError:
    require("sklearn", "learn")
    raise

ESTIMATOR = "estimator.json"  # beside the model in a saved estimator's folder


class _OfTexts(BaseEstimator):
    """What both share: they read texts, and are a model with some plain data once fitted.

    A copy or a pickle, as joblib makes for its processes, carries the files of the model's folder.
    """

    model: Any
    model_: LanguageModel
    _fitted: tuple[str, ...] = ()  # plain data of a fitted estimator, beside its model

    def save(self, folder: str | Path) -> None:
        """A Hugging Face folder, which ``tercet.load`` opens too, and estimator.json in it.

        Raises NotFittedError before ``fit``, and InputError for a place that cannot be written."""
        check_is_fitted(self)
        kept = {
            "estimator": type(self).__name__,
            "parameters": {name: _plain(value) for name, value in self.get_params().items()},
            **{name: _plain(getattr(self, name)) for name in self._fitted},
        }
        with written_folder(folder) as place:
            self.model_.save(place)
            text = json.dumps(kept, indent=1, ensure_ascii=False)
            (place / ESTIMATOR).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """What ``save`` wrote. Raises InputError for a folder of anything else."""
        path = Path(folder) / ESTIMATOR
        if not path.is_file():
            raise InputError(
                f"{folder} holds no {ESTIMATOR}, so no estimator was saved there; a model alone is "
                f"opened by tercet.load, or given to {cls.__name__} as model"
            )
        with undamaged(path):
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["estimator"] != cls.__name__:
                raise InputError(f"{folder} holds a {kept['estimator']}; open it with its load")
            self = cls(**kept["parameters"])
            for name in cls._fitted:
                setattr(self, name, kept[name])
        self.model_ = load(folder)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        if "model_" in state:
            with TemporaryDirectory() as folder:
                state.pop("model_").save(folder)
                paths = [path for path in Path(folder).rglob("*") if path.is_file()]
                state["files"] = {
                    path.relative_to(folder).as_posix(): path.read_bytes() for path in paths
                }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.get("files")
        vars(self).update({name: value for name, value in state.items() if name != "files"})
        if files is not None:
            with TemporaryDirectory() as folder:
                for name, content in files.items():
                    path = Path(folder) / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                self.model_ = load(folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags

    def _named(self) -> str:
        """Of the model, which stays a name: a clone would copy a network."""
        if not isinstance(self.model, str | Path):
            raise InputError(
                f"model must be a folder or a name of the hub, not a {type(self.model).__name__}; "
                "save it, and give its folder"
            )
        return str(self.model)


class TextEmbedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _OfTexts):
    """Texts become the vectors of a model that learns nothing, for whatever learns on vectors.

    model: a folder, or a model of the hub. pool: first ([CLS]), mean or last; None: as the folder
    says, else mean. prompt: one of the folder's prompts ("query"), put before each text.
    """

    def __init__(
        self, model: str | Path, pool: str | None = None, prompt: str | None = None
    ) -> None:
        self.model, self.pool, self.prompt = model, pool, prompt

    def fit(self, X: Any, y: Any = None) -> Self:
        """Loads the model; X and y decide nothing. Raises InputError for a model, a pool or a
        prompt that does not exist."""
        model = load(self._named())
        model.embed_stream([], pool=self.pool, prompt=self.prompt)  # checks both
        self.model_ = model
        return self

    def transform(self, X: Any) -> np.ndarray:
        """(B, D) float32, a vector for each text. Of texts beyond the context the start is read,
        with a CutWarning. Raises InputError for what is no list of texts."""
        check_is_fitted(self)
        return self.model_.embed(_texts(X, pairs=False), pool=self.pool, prompt=self.prompt)

    @property
    def _n_features_out(self) -> int:
        """For the names of the outputs, textembedder0 and so on."""
        return self.model_.config.d_model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


class TextClassifier(ClassifierMixin, _OfTexts):
    """A pretrained model learns one label a text: ``tercet finetune --task classify`` on lists.

    model: a folder, or a model of the hub. epochs, learning_rate, rows, freeze, class_weights
    (none, balanced, effective), pool and metric are settings of that verb (docs/finetuning.md).
    validation: the share of the texts that is held back, to choose the best epoch by and to
    calibrate on. seed: of the new head, the order and the dropout. verbose: show the progress.

    Fitted, it has ``classes_``; ``model_``, a LanguageModel; and ``result_``: the figures of the
    held-out share and how long it took, as the verb's result.json.
    """

    _fitted = ("classes_", "result_")

    def __init__(
        self,
        model: str | Path,
        *,
        epochs: int = 5,
        learning_rate: float | None = None,
        rows: int = 32,
        freeze: int | None = None,
        class_weights: str = "none",
        pool: str | None = None,
        metric: str | None = None,
        validation: float = 0.1,
        seed: int = 0,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.rows = rows
        self.freeze = freeze
        self.class_weights = class_weights
        self.pool = pool
        self.metric = metric
        self.validation = validation
        self.seed = seed
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Learns from texts, or pairs of texts as tuples, and a label for each: names, whole
        numbers, true or false.

        What is odd in them is a warning: texts that come twice, are cut, or have several labels.
        Raises InputError for what cannot be learned from.
        """
        texts, labels = _texts(X, pairs=True), _labels(y)
        if len(texts) != len(labels):
            raise InputError(f"{len(texts):,} texts with {len(labels):,} labels; give one for each")
        classes = np.unique(labels)
        names = _names(classes)
        table, recipe = _table(texts, [names[label] for label in labels.tolist()]), self._recipe()
        odd: list[str] = []
        with TemporaryDirectory() as folder:
            job = Job.of(
                recipe,
                Path(folder),
                lambda recipe, model, say: of_tables({"train": table}, recipe, model, odd.append),
                quiet=not self.verbose,
            )
            for sentence in odd:
                warnings.warn(sentence, stacklevel=2)
            result = job.run()
            model = load(Path(folder) / "model")
        self.classes_, self.model_, self.result_ = classes, model, result
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(B, labels) float64, the calibrated probability of each of ``classes_``. Of texts beyond
        the context the start is read, with a CutWarning."""
        check_is_fitted(self)
        names = _names(self.classes_).values()
        found = [answer.probabilities for answer in self.model_.classify(_texts(X, pairs=True))]
        rows = np.array([[row[name] for name in names] for row in found])
        return rows / rows.sum(1, keepdims=True)  # they are float32: 1 but for 1e-7

    def predict(self, X: Any) -> np.ndarray:
        """(B,) of ``classes_``, the likeliest one of each text."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        self = super().load(folder)
        self.classes_ = np.array(self.classes_)
        return self

    def _recipe(self) -> FinetuneRecipe:
        """Raises InputError for a parameter that cannot be."""
        told = {name: _plain(value) for name, value in self.get_params().items()}
        share = told["validation"]
        if not isinstance(share, float) or not 0 < share < 1:
            raise InputError(f"validation {share!r} must be a share between 0 and 1, such as 0.1")
        train = ("epochs", "learning_rate", "rows", "freeze", "class_weights")
        tree: dict[str, Any] = {
            "model": self._named(),
            "task": "classify",
            "data": {"train": ["X"], "validation": share},
            "train": {name: told[name] for name in train},
            "evaluate": {"metric": told["metric"]},
            "classify": {"kind": "label", "pool": told["pool"]},
            "seed": told["seed"],
        }
        return recipes.built(FinetuneRecipe, tree, type(self).__name__)


def _texts(X: Any, *, pairs: bool) -> list[Any]:
    """A list of strings; with ``pairs`` also one of tuples of two. Raises InputError for others."""
    shape = getattr(X, "shape", None)
    if isinstance(X, str) or not isinstance(X, Iterable) or (shape and len(shape) != 1):
        what = f"an array of shape {shape}" if shape else f"a {type(X).__name__}"
        raise InputError(
            f"X is {what}; give a list of texts, or the one column of a table that holds them"
        )
    texts = list(X)
    if not texts:
        raise InputError("X holds no text (0 samples); give at least one")
    wanted = "a text, or a pair of texts as a tuple" if pairs else "a text"
    for i, text in enumerate(texts):
        parts = text if pairs and isinstance(text, tuple) and len(text) == 2 else (text,)
        for part in parts:
            if not isinstance(part, str):
                raise InputError(f"X[{i}] is a {type(part).__name__}, {part!r:.40}; give {wanted}")
            if not part.strip():
                raise InputError(f"X[{i}] is empty ({text!r:.40}); leave it out")
        if isinstance(text, tuple) != isinstance(texts[0], tuple):
            raise InputError(f"X[0] and X[{i}] are a text and a pair; give all of one kind")
    return texts


def _labels(y: Any) -> np.ndarray:
    """(B,) of names, whole numbers or truths. Raises InputError for others."""
    # of a list each label as it was given: as an array of one kind, 1 beside "no" is "1"
    given = np.asarray(y, object if isinstance(y, list | tuple) else None)
    if given.ndim != 1:
        raise InputError(f"y has the shape {given.shape}; give one label a text, in a flat list")
    values = [v.item() if isinstance(v, np.generic) else v for v in given.tolist()]
    for i, value in enumerate(values):
        whole = isinstance(value, float) and value.is_integer()
        if not (whole or isinstance(value, int) or (isinstance(value, str) and value.strip())):
            raise InputError(
                f"y[{i}] is {value!r}, which is no label; give names or whole numbers, without gaps"
            )
    kinds = {"int" if isinstance(value, float) else type(value).__name__ for value in values}
    if len(kinds) > 1:
        raise InputError(f"y holds {' and '.join(sorted(kinds))}; give labels of one kind")
    return np.asarray(y)


def _names(classes: np.ndarray) -> dict[Any, str]:
    """What each label is called in the model's folder."""
    names = {label: str(label).strip() for label in classes.tolist()}
    if len(set(names.values())) < len(names):
        raise InputError(
            f"labels differ in blanks alone ({', '.join(map(repr, names))}); strip them"
        )
    return names


def _table(texts: list[Any], labels: list[str]) -> Table:
    """The rows, as if they had been read from a file."""
    pairs = isinstance(texts[0], tuple)
    parts = [dict(zip(("text", "pair"), text if pairs else (text,))) for text in texts]
    columns = dict.fromkeys(parts[0], "X") | {"label": "y"}
    rows = [
        (f"X[{i}]", part | {"label": label})
        for i, (part, label) in enumerate(zip(parts, labels, strict=True))
    ]
    return Table(columns, (), rows)


def _plain(value: Any) -> Any:
    """For JSON, and for settings: a number of numpy's is a plain one, an array a list."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value
