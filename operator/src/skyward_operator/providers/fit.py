"""Which offers fit a candidate, for all adapters alike. Pure.

What nothing fits is refused with the field that nothing fits: a name that the provider does not know comes
with those that are near it, a size with the largest there is.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from skyward_operator.providers.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from skyward.contract.hardware import Accelerator, Candidate
    from skyward_operator.providers.contract import Offer

type Test = Callable[[Offer], bool]
type Requirement = tuple[str, Test, Callable[[Sequence[Offer]], str]]
"""A field, what has it, and the words for when none of the offers that are left has it."""


def fitting(candidate: Candidate, offers: Iterable[Offer]) -> list[Offer]:
    """The offers that have everything a candidate asks for, whatever their price and market.

    Raises Rejected where no offer has it; the message names the field.
    """
    left = list(offers)
    if not left:
        return []
    for field, test, text in requirements(candidate):
        kept = [offer for offer in left if test(offer)]
        if not kept:
            raise Rejected(f"{field}: {text(left)}")
        left = kept
    return left


def requirements(candidate: Candidate) -> Iterable[Requirement]:
    """What is asked for, field by field."""
    provider = candidate.provider
    if candidate.regions:
        yield named("regions", candidate.regions, f"region of {provider}", lambda offer: offer.region)
    if candidate.instance_types:
        what = f"instance type of {provider}" + (" in these regions" if candidate.regions else "")
        yield named("instanceTypes", candidate.instance_types, what, lambda offer: offer.instance_type)
    if candidate.accelerator is not None:
        yield from accelerator_requirements(candidate.accelerator, provider)
    if (vcpus := candidate.vcpus) is not None:
        yield sized("vcpus", vcpus, lambda offer: offer.vcpus)
    if (memory := candidate.memory_gib) is not None:
        yield sized("memoryGiB", memory, lambda offer: offer.memory_gib)
    if (disk := candidate.disk_gib) is not None:
        yield sized("diskGiB", disk, lambda offer: offer.disk_gib)
    if candidate.architecture:
        what = "architecture among what fits the other fields"
        yield named("architecture", [candidate.architecture], what, lambda offer: offer.architecture)


def accelerator_requirements(wanted: Accelerator, provider: str) -> Iterable[Requirement]:
    """Name, count, memory and form of accelerators; what no offer tells cannot be asked for."""
    if wanted.mig is not None:
        yield untold("accelerator.mig", provider)

    def counted(offer: Offer) -> bool:
        return offer.accelerator is not None and offer.accelerator.count == wanted.count

    def counts(offers: Sequence[Offer]) -> str:
        sold = sorted({offer.accelerator.count for offer in offers if offer.accelerator})
        return f"{wanted.name} is sold by {', '.join(f'{each:f}' for each in sold)}, not by {wanted.count:f}"

    def memory(offer: Offer) -> int | None:
        return offer.accelerator.memory_gib if offer.accelerator else None

    yield named("accelerator.name", [wanted.name], f"accelerator of {provider}", accelerator_name)
    yield "accelerator.count", counted, counts
    if (least := wanted.memory_gib) is not None:
        yield sized("accelerator.memoryGiB", least, memory)
    if (form := wanted.form_factor) is not None:
        yield built_in(form, wanted.name, provider)


def built_in(form: str, name: str, provider: str) -> Requirement:
    """How an accelerator is built in; a provider may not tell it."""
    field, test, words = named(
        "accelerator.formFactor", [form], f"form factor of {name} at {provider}", form_factor
    )
    _, _, nothing = untold(field, provider)
    return field, test, lambda offers: (words if any(map(form_factor, offers)) else nothing)(offers)


def form_factor(offer: Offer) -> str | None:
    """How the accelerator of an offer is built in, if its provider tells."""
    return offer.accelerator.form_factor if offer.accelerator else None


def accelerator_name(offer: Offer) -> str | None:
    """What an offer calls its accelerator."""
    return offer.accelerator.name if offer.accelerator else None


def named(field: str, wanted: Sequence[str], what: str, name: Callable[[Offer], str | None]) -> Requirement:
    """One of these names, in any case."""
    lower = {each.lower() for each in wanted}

    def words(offers: Sequence[Offer]) -> str:
        return unknown(wanted, sorted({known for offer in offers if (known := name(offer))}), what)

    return field, lambda offer: (name(offer) or "").lower() in lower, words


def untold(field: str, provider: str) -> Requirement:
    """What no offer of this provider tells."""
    text = f"provider {provider} does not tell it in its offers; leave it out, or name instanceTypes"
    return field, lambda _: False, lambda _: text


def sized(field: str, wanted: int, size: Callable[[Offer], int | None]) -> Requirement:
    """At least so much; an offer that does not say has not."""

    def words(offers: Sequence[Offer]) -> str:
        largest = max(size(offer) or 0 for offer in offers)
        return f"{wanted} asked for; the largest that fits the other fields has {largest}"

    return field, lambda offer: (size(offer) or 0) >= wanted, words


def unknown(wanted: Sequence[str], known: Sequence[str], what: str) -> str:
    """Words for names that are not known, with those that are near."""
    names = ", ".join(repr(name) for name in wanted)
    near = sorted({match for name in wanted for match in difflib.get_close_matches(name, known, 3)})
    there = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known[:20])}"
    return f"{names} is no {what}; {there}"
