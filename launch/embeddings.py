"""Looks at the word vectors of a run: python -m launch.embeddings --workdir=RUN --neighbours=king,paris

    --analogy=man:king:woman        what is to woman as king is to man
    --similarity=FILE               Spearman's correlation with people's scores, lines word<TAB>word<TAB>score
    --analogies=FILE                accuracy on questions of four words, by section
    --export=FILE                   the vectors in word2vec's text format; --vectors=FILE reads such a file again

Exit status: 0 done; 2 the flags or a file are wrong.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxdl.analysis import embeddings
from jaxdl.errors import InputError
from jaxdl.types import PositiveInt
from launch import cli


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Flags of this command.

    Attributes:
      workdir: the run directory of a word embedding (skip_gram, cbow, glove).
      vectors: a file in word2vec's text format, in place of a run.
      checkpoint: which checkpoint of the run: best, latest, or a step.
      neighbours: words whose nearest neighbours are shown.
      analogy: questions a:b:c, what is to c as b is to a.
      combination: how an analogy is solved: add (3CosAdd) or multiply (3CosMul).
      count: how many neighbours and answers are shown.
      similarity: files of pairs of words and scores, as WordSim-353 and SimLex-999.
      analogies: files of questions of four words, as questions-words.txt.
      export: file that the vectors are written to, in word2vec's text format.
    """

    workdir: str = ""
    vectors: str = ""
    checkpoint: str = "latest"
    neighbours: tuple[str, ...] = ()
    analogy: tuple[str, ...] = ()
    combination: Literal["add", "multiply"] = "add"
    count: PositiveInt = 10
    similarity: tuple[str, ...] = ()
    analogies: tuple[str, ...] = ()
    export: str = ""

    def run(self) -> None:
        """Prints what was asked for. Raises InputError for what cannot be: a missing file, an unknown word."""
        asked = (self.neighbours, self.analogy, self.similarity, self.analogies, self.export)
        if not any(asked):
            raise InputError("nothing was asked for: --neighbours, --analogy, --similarity, --analogies or --export.")
        if bool(self.workdir) == bool(self.vectors):
            raise InputError("whose vectors? Either --workdir=RUN or --vectors=FILE.")
        questions = [self._question(text) for text in self.analogy]
        pairs = {path: embeddings.read_similarity(path) for path in self.similarity}
        sections = {path: embeddings.read_analogies(path) for path in self.analogies}
        if self.vectors:
            vectors = embeddings.read_word2vec(self.vectors)
        else:
            vectors = run_vectors(self.workdir, self.checkpoint)
        for word in self.neighbours:
            self._show(f"nearest to {word}", embeddings.nearest(vectors, word, self.count))
        for a, b, c in questions:
            answers = embeddings.analogy(vectors, a, b, c, self.count, self.combination)
            self._show(f"{a} is to {b} as {c} is to", answers)
        for path, found in pairs.items():
            result = embeddings.evaluate_similarity(vectors, found)
            print(f"{path}: Spearman {result.spearman:.4f} over {result.covered} of {result.total} pairs")
        for path, found in sections.items():
            results = embeddings.evaluate_analogies(vectors, found, self.combination)
            print(f"{path}: {self.combination}")
            for name, answers in results.items():
                share = f"{answers.correct} of {answers.covered}"
                print(f"  {name}: accuracy {answers.accuracy:.4f}, {share}, of {answers.total} questions")
        if self.export:
            embeddings.write_word2vec(vectors, self.export)
            print(f"written: {self.export}")

    def _question(self, text: str) -> tuple[str, str, str]:
        words = tuple(text.split(":"))
        if len(words) != 3 or not all(words):
            raise InputError(f"--analogy={text}: a question is a:b:c, such as man:king:woman.")
        return words

    def _show(self, title: str, found: Sequence[tuple[str, float]]) -> None:
        print(title)
        for word, score in found:
            print(f"  {score:.4f}  {word}")


def run_vectors(workdir: str, checkpoint: str) -> embeddings.WordVectors:
    """The word vectors of a run. Raises InputError: no run directory or checkpoint, or a model that has none."""
    from jaxdl import experiment
    from jaxdl.tasks.embeddings import word_vectors

    _, program, _, _, state = experiment.restore(workdir, checkpoint)
    return word_vectors(program.model, program.variables(state), program.data)


def main(argv: Sequence[str]) -> int:
    """Runs the command; gives back its exit status."""
    return cli.run_flags(Embeddings, argv, __doc__)


if __name__ == "__main__":
    cli.main(main)
