"""The root of every error that a user of modeguard can cause and mend."""


class ModeguardError(Exception):
    """Base of the errors whose message says what was expected, what came and the way out."""


class DetectorInputError(ModeguardError, ValueError):
    """Images, features or options that the method cannot work on."""
