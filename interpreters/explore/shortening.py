"""Long texts in few lines: what is left out is counted where it would stand."""

from collections.abc import Callable, Sequence


def allotted(needs: Sequence[int], room: int, weights: Sequence[int]) -> list[int]:
    """How many lines each part gets, where all together have so many: the short ones all that they need.

    Args:
        needs: How many lines each has.
        room: How many there are for all. Each gets one, also where that is more.
        weights: How much more of them each gets than one with a 1.

    >>> allotted([1, 3, 50], 10, [1, 1, 1]), allotted([40, 50], 10, [1, 1]), allotted([40, 50], 8, [3, 1])
    ([1, 3, 6], [5, 5], [6, 2])
    """
    given = [min(need, 1) for need in needs]
    for _ in range(room - sum(given)):
        short = [index for index, need in enumerate(needs) if given[index] < need]
        if not short:
            break
        given[min(short, key=lambda index: given[index] / weights[index])] += 1
    return given


def beginning(lines: Sequence[str], count: int) -> list[str]:
    """The first lines, and how many more there are.

    >>> beginning(["  found  a", "         b", "         c"], 2)
    ['  found  a', '         … 2 more lines']
    >>> beginning(["  found  a", "         b", "         c"], 1)
    ['  found  a … 2 more lines']
    """
    if len(lines) <= count:
        return [*lines]
    if count == 1:
        return [f"{lines[0]} … {len(lines) - 1:,} more line{'s' * (len(lines) > 2)}"]
    indent = len(lines[1]) - len(lines[1].lstrip())
    return [*lines[: count - 1], f"{'':<{indent}}… {len(lines) - count + 1:,} more lines"]


def beginning_and_end(lines: Sequence[str], count: int, is_kept: Callable[[str], bool]) -> list[str]:
    """The first lines and the last ones, twice as many; of those between them, as many that are kept as there is room.

    >>> beginning_and_end(["trace", *(f"  {n}" for n in range(1, 30))], 6, lambda line: line == "  20")
    ['trace', '  … 19 more lines …', '  20', '  … 7 more lines …', '  28', '  29']
    """
    if len(lines) <= count:
        return [*lines]
    wanted = [index for index, line in enumerate(lines) if is_kept(line)]
    size = len(lines)
    # By turns: one from the beginning, two from the end; what is to be kept comes before them.
    order = [0, *wanted[: count // 3], size - 1]
    for number in range(1, size):
        order += [size - 2 * number, number, size - 2 * number - 1]
    chosen: list[int] = []
    for index in dict.fromkeys(order):
        if 0 <= index < size and len(_with_gaps(lines, [*chosen, index])) <= count:
            chosen.append(index)
    return _with_gaps(lines, chosen)


def _with_gaps(lines: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """These lines in their order, each gap counted."""
    told: list[str] = []
    following = 0
    for index in [*sorted(chosen), len(lines)]:
        if index > following:
            indent = len(lines[following]) - len(lines[following].lstrip())
            told.append(f"{'':<{indent}}… {index - following:,} more lines …")
        if index < len(lines):
            told.append(lines[index])
        following = index + 1
    return told
