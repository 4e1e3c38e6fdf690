"""The one error that this project raises to its users."""


class SeminarError(Exception):
    """A refusal: which field, which value, what is wrong with it, and what to do about it.

    Commands print it as one sentence and exit with status 1; services put it into the answer's body.
    """

    def __init__(self, field: str, value: object, problem: str, remedy: str) -> None:
        Exception.__init__(self, field, value, problem, remedy)
        self.field = field
        self.value = value
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        value = "" if self.value is None else str(self.value)
        return f"{self.field}: {value!r} {self.problem}; {self.remedy}."
