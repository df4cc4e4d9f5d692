"""The one error that users can mend. It knows nothing of what went wrong; the raiser writes the sentence."""


class InputError(ValueError):
    """What was wrong, the offending value, and the remedy, in one line.

    The command line prints it without a traceback and exits with 2. Our own mistakes are never an
    InputError: they keep their traceback.
    """
