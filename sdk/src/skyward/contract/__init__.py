"""The contract: the three resources of `skyward.dev`, in one place.

Everything that the SDK, the operator and a person with `kubectl` agree on lives here: names, reasons, models,
permissions, and the CustomResourceDefinitions that are generated from the models. It knows pydantic and the
standard library only, and it never does I/O, so that both sides can import it.
"""
