"""The estimators inside scikit-learn's own tools, and the checks of scikit-learn that ask no more
than texts can answer."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from small_tables import label_of, model_folder, sentences

import tercet
from tercet.errors import InputError
from tercet.sklearn import ESTIMATOR, TextClassifier, TextEmbedder

TEXTS = sentences(60, 1)
LABELS = [label_of(text) for text in TEXTS]
UNSEEN = sentences(20, 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("estimators") / "model")


def classifier(model: Path, **changes: Any) -> TextClassifier:
    return TextClassifier(model, **{"epochs": 3, "learning_rate": 1e-2, "rows": 16, **changes})


@pytest.fixture(scope="module")
def fitted(model: Path) -> TextClassifier:
    return classifier(model).fit(TEXTS, LABELS)


# the classifier ----------------------------------------------------------------------------------


def test_it_learns_and_answers_in_the_order_of_its_classes(model: Path):
    truth = [label_of(text) == "yes" for text in UNSEEN]
    many = sentences(200, 3)
    found = classifier(model, epochs=6).fit(many, [label_of(text) == "yes" for text in many])
    assert found.classes_.tolist() == [False, True]
    assert found.score(UNSEEN, truth) > 0.9
    rows = found.predict_proba(UNSEEN)
    assert rows.shape == (20, 2) and np.abs(rows.sum(1) - 1).max() < 1e-12
    answers = found.model_.classify(UNSEEN)
    assert rows[:, 1] == pytest.approx([one.probabilities["True"] for one in answers], abs=1e-6)
    assert found.predict(UNSEEN).tolist() == [one.label == "True" for one in answers]
    assert found.result_["data"]["train"] == 200 and found.result_["metric"] == "accuracy"


def test_numbers_of_labels_stand_in_the_order_of_numbers(model: Path):
    labels = [[9, 10, 1][len(text) % 3] for text in TEXTS]
    found = classifier(model, epochs=1).fit(np.array(TEXTS), np.array(labels))
    assert found.classes_.tolist() == [1, 9, 10] and found.model_.labels == ("1", "9", "10")
    mixed = [float(label) if i % 2 else np.int64(label) for i, label in enumerate(labels)]
    assert classifier(model, epochs=1).fit(TEXTS, mixed).classes_.tolist() == [1, 9, 10]
    words = classifier(model, epochs=1).fit(TEXTS, [str(label) for label in labels])
    assert words.classes_.tolist() == ["1", "10", "9"]  # scikit-learn's order
    assert words.predict_proba(UNSEEN) == pytest.approx(found.predict_proba(UNSEEN)[:, [0, 2, 1]])


def test_the_settings_reach_the_run(model: Path):
    found = classifier(
        model, epochs=np.int64(1), learning_rate=np.float64(1e-3), freeze=1,
        class_weights="balanced", pool="mean", metric="macro_f1", validation=0.25, seed=3,
    ).fit(TEXTS, LABELS)  # fmt: skip
    result = found.result_
    assert result["learning_rate"] == 1e-3 and result["metric"] == "macro_f1"
    assert list(result["runs"]) == ["seed-3"] and result["validation"]["n"] == 15
    assert found.model_.config.pool == "mean"
    own = tercet.load(model).network.state_dict()
    now = found.model_.network.state_dict()
    same = [name for name, value in now.items() if name in own and value.equal(own[name])]
    assert any(".0." in name for name in same) and not any(".1." in name for name in same)


def test_pairs_of_texts(model: Path):
    pairs = list(zip(TEXTS, reversed(TEXTS)))
    found = classifier(model, epochs=1).fit(pairs, LABELS)
    assert found.predict_proba(pairs[:5]).shape == (5, 2)
    assert found.model_.classify(pairs[0]).label == found.predict(pairs[:1])[0]


def test_what_is_odd_is_a_warning(model: Path):
    with pytest.warns(UserWarning, match="1 rows come twice"):
        classifier(model, epochs=1).fit([*TEXTS, TEXTS[0]], [*LABELS, LABELS[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(model, epochs=1).fit(TEXTS, LABELS)


# inside scikit-learn's tools ---------------------------------------------------------------------


def test_a_grid_of_rates(model: Path):
    many = sentences(200, 3)  # enough for any tokenizer: equal merges are drawn anew each time
    found = GridSearchCV(
        classifier(model, epochs=8), {"learning_rate": [1e-9, 1e-2]}, cv=2, error_score="raise"
    ).fit(many, [label_of(text) for text in many])
    assert found.best_params_ == {"learning_rate": 1e-2}
    assert found.best_estimator_.learning_rate == 1e-2
    assert found.predict(UNSEEN).shape == (20,)


def test_cross_validation_in_processes_gives_the_same_scores(model: Path):
    one = classifier(model, epochs=1)
    scores = cross_val_score(one, TEXTS, LABELS, cv=2, error_score="raise")
    again = cross_val_score(
        one, TEXTS, LABELS, cv=2, n_jobs=2, error_score="raise", scoring="accuracy"
    )
    assert scores.shape == (2,) and scores.tolist() == again.tolist()
    losses = cross_val_score(one, TEXTS, LABELS, cv=2, scoring="neg_log_loss")
    assert np.isfinite(losses).all()


def test_vectors_and_logistic_regression_in_a_pipeline(model: Path):
    pipe = make_pipeline(TextEmbedder(model), LogisticRegression(C=100.0))
    pipe.fit(TEXTS, LABELS)
    vectors = tercet.load(model).embed(TEXTS)
    alone = LogisticRegression(C=100.0).fit(vectors, LABELS)
    unseen = tercet.load(model).embed(UNSEEN)
    assert pipe.predict_proba(UNSEEN) == pytest.approx(alone.predict_proba(unseen), abs=1e-5)
    grid = GridSearchCV(
        pipe, {"textembedder__pool": ["first", "mean"]}, cv=2, error_score="raise"
    ).fit(TEXTS, LABELS)
    assert grid.best_params_["textembedder__pool"] in ("first", "mean")


def test_the_embedder(model: Path):
    one = TextEmbedder(model, pool="last").fit(TEXTS)
    vectors = one.transform(np.array(UNSEEN))
    assert vectors.shape == (20, 32) and vectors.dtype == np.float32
    assert np.array_equal(vectors, tercet.load(model).embed(UNSEEN, pool="last"))
    names = one.get_feature_names_out()
    assert names[0] == "textembedder0" and len(names) == 32
    assert np.array_equal(TextEmbedder(model, "last").fit_transform(UNSEEN), vectors)


# what is kept ------------------------------------------------------------------------------------


def test_saved_and_loaded_it_says_the_same(fitted: TextClassifier, tmp_path: Path):
    fitted.save(tmp_path / "kept")
    again = TextClassifier.load(tmp_path / "kept")
    assert np.array_equal(again.predict_proba(UNSEEN), fitted.predict_proba(UNSEEN))
    assert np.array_equal(again.predict(UNSEEN), fitted.predict(UNSEEN))
    assert again.get_params() == {**fitted.get_params(), "model": str(fitted.model)}
    assert again.result_ == fitted.result_ and again.classes_.tolist() == ["no", "yes"]
    answers = tercet.load(tmp_path / "kept").classify(UNSEEN)
    assert [answer.label for answer in answers] == fitted.predict(UNSEEN).tolist()
    refit = clone(again).fit(TEXTS, LABELS)
    assert np.array_equal(refit.predict_proba(UNSEEN), fitted.predict_proba(UNSEEN))


def test_the_embedder_is_kept_too(model: Path, tmp_path: Path):
    one = TextEmbedder(model, pool="first").fit(TEXTS)
    one.save(tmp_path)
    again = TextEmbedder.load(tmp_path)
    assert np.array_equal(again.transform(UNSEEN), one.transform(UNSEEN))
    with pytest.raises(InputError, match="holds a TextEmbedder"):
        TextClassifier.load(tmp_path)
    (tmp_path / ESTIMATOR).write_text("{}")
    with pytest.raises(InputError, match="estimator.json: damaged"):
        TextEmbedder.load(tmp_path)


def test_copies_and_pickles_say_the_same(fitted: TextClassifier):
    wanted = fitted.predict_proba(UNSEEN)
    for twin in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert twin.model_ is not fitted.model_
        assert np.array_equal(twin.predict_proba(UNSEEN), wanted)
        assert twin.get_params() == fitted.get_params()


# refusals ----------------------------------------------------------------------------------------


def test_before_fit(model: Path, tmp_path: Path):
    for call in (
        lambda: classifier(model).predict(UNSEEN),
        lambda: classifier(model).predict_proba(UNSEEN),
        lambda: classifier(model).save(tmp_path),
        lambda: TextEmbedder(model).transform(UNSEEN),
        lambda: TextEmbedder(model).get_feature_names_out(),
        lambda: TextEmbedder(model).save(tmp_path),
    ):
        with pytest.raises(NotFittedError):
            call()
    with pytest.raises(InputError, match="holds no estimator.json"):
        TextClassifier.load(model)


@pytest.mark.parametrize(
    "texts, labels, said",
    [
        ("a text", ["a"], "X is a str; give a list of texts"),
        (np.array([["a"], ["b"]]), ["a", "b"], r"X is an array of shape \(2, 1\)"),
        ([], [], "X holds no text"),
        (["a", 5], ["a", "b"], "X.1. is a int, 5; give a text, or a pair"),
        (["a", " "], ["a", "b"], "X.1. is empty"),
        (["a", ("a", "b")], ["a", "b"], "X.0. and X.1. are a text and a pair"),
        (["a", "b"], ["a"], "2 texts with 1 labels"),
        (["a", "b"], [["a"], ["b"]], r"y has the shape \(2, 1\)"),
        (["a", "b"], [1.0, 0.5], r"y.1. is 0.5, which is no label"),
        (["a", "b"], [1.0, np.nan], r"y.1. is nan, which is no label"),
        (["a", "b"], ["a", None], r"y.1. is None, which is no label"),
        (["a", "b"], np.array(["a", 1], object), "y holds int and str"),
        (["a", "b"], [1, "no"], "y holds int and str"),
        (["a", "b"], ("no", np.int64(1)), "y holds int and str"),
        (["a", "b"], [True, "no"], "y holds bool and str"),
        (["a", "b"], [["a"], "b"], r"y.0. is \['a'\], which is no label"),
        (["a", "b"], ["a", "a "], "labels differ in blanks alone"),
        (TEXTS, ["a"] * 60, "all 60 training rows have the label 'a'"),
    ],
)
def test_bad_rows(model: Path, texts: Any, labels: Any, said: str):
    with pytest.raises(InputError, match=said):
        classifier(model).fit(texts, labels)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"epochs": 0}, "TextClassifier: train.epochs 0 must be 1 or more"),
        ({"epochs": "many"}, "train.epochs 'many' must be a whole number"),
        ({"class_weights": "balance"}, "did you mean 'balanced'"),
        ({"validation": 1}, "validation 1 must be a share between 0 and 1"),
        ({"metric": "f2"}, "evaluate.metric 'f2' is unknown"),
        ({"model": 5}, "model must be a folder or a name of the hub, not a int"),
        ({"model": "no/such/folder"}, "no/such/folder"),
    ],
)
def test_bad_parameters(model: Path, changes: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        classifier(model).set_params(**changes).fit(TEXTS, LABELS)


def test_bad_choices_of_the_embedder(model: Path):
    with pytest.raises(InputError, match="pool 'middle' is unknown"):
        TextEmbedder(model, pool="middle").fit(TEXTS)
    with pytest.raises(InputError, match="prompt"):
        TextEmbedder(model, prompt="query").fit(TEXTS)
    with pytest.raises(InputError, match=r"X\[0\] is a tuple"):
        TextEmbedder(model).fit(TEXTS).transform([("a", "b")])


def test_without_scikit_learn_the_remedy_is_said():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import tercet, tercet.language_model, tercet.errors\n"
        "try: from tercet.sklearn import TextClassifier\n"
        "except tercet.errors.InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "install it with: pip install 'tercet[learn]'" in done.stdout, done.stderr


def test_tercet_itself_imports_no_scikit_learn():
    program = "import sys, tercet; tercet.load; print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# scikit-learn's own checks -----------------------------------------------------------------------

# ``check_estimator`` runs none of its checks on estimators whose input are no numbers. Of these,
# the first ask only for parameters and tags; the others fit and predict, on texts that the classes
# below make of the checks' rows of numbers. Left out: checks of what numbers alone can be (dtypes,
# nan, sparse, memory order, two dimensions, their count of features) and of accuracy on blobs.
OF_PARAMETERS = (
    *("check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types"),
    *("check_estimator_repr", "check_no_attributes_set_in_init", "check_mixin_order"),
    *("check_do_not_raise_errors_in_init_or_set_params", "check_get_params_invariance"),
    *("check_parameters_default_constructible", "check_set_params"),
)
OF_FITTING = (
    *("check_estimators_unfitted", "check_fit_score_takes_y", "check_estimators_overwrite_params"),
    *("check_dont_overwrite_parameters", "check_estimators_fit_returns_self"),
    *("check_dict_unchanged", "check_fit_idempotent", "check_fit_check_is_fitted"),
    *("check_estimators_pickle", "check_pipeline_consistency"),
    *("check_methods_sample_order_invariance", "check_methods_subset_invariance"),
)
ESTIMATORS: dict[str, Any] = {
    "TextClassifier": lambda model: NumbersClassifier(
        str(model), epochs=1, learning_rate=1e-2, rows=16
    ),
    "TextEmbedder": lambda model: NumbersEmbedder(str(model)),
}


def spelt(X: Any) -> Any:
    """A text for each row of numbers; other things as they are."""
    if getattr(X, "ndim", 0) != 2:
        return X
    words = "the a one two red blue old new house tree".split()
    return [" ".join(words[round(abs(n) * 10) % 10] for n in row) for row in np.asarray(X)]


def of_numbers(tags: Any) -> Any:
    tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
    return tags


class NumbersClassifier(TextClassifier):
    def __sklearn_tags__(self) -> Any:
        return of_numbers(super().__sklearn_tags__())

    def fit(self, X: Any, y: Any) -> Any:
        return super().fit(spelt(X), y)

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(spelt(X))


class NumbersEmbedder(TextEmbedder):
    def __sklearn_tags__(self) -> Any:
        return of_numbers(super().__sklearn_tags__())

    def transform(self, X: Any) -> np.ndarray:
        return super().transform(spelt(X))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("check", [*OF_PARAMETERS, *OF_FITTING])
def test_checks_of_scikit_learn(model: Path, check: str, name: str):
    getattr(estimator_checks, check)(name, ESTIMATORS[name](model))
