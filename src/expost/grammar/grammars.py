"""Grammars that come with the library, by name, and reading others from files."""

from __future__ import annotations

from pathlib import Path

from expost.errors import DataError, UsageError
from expost.grammar.budgets import MOST_TEXT
from expost.grammar.cfg import Grammar, useless
from expost.grammar.notation import read_rules
from expost.grammar.rules import shown
from expost.registry import Registry
from expost.utils.progress import say
from expost.utils.reading import size_of

#: Productions that are left out are named up to so many.
LISTED = 5

# Kusner, Paige & Hernandez-Lobato 2017, section 4.1
EXPRESSIONS = """\
S -> S '+' T | S '*' T | S '/' T | T
T -> '(' S ')' | 'sin(' S ')' | 'exp(' S ')' | 'x' | '1' | '2' | '3'
"""

# After the OpenSMILES specification, section 2. All that the 76 productions of Kusner et al. derive is in it, and also:
# digits 0 and 9, ring numbers of two digits (%10) and, as RDKit writes them, more (%(100)), the bonds : and $, and
# RDKit's ~, -> and <-, the aromatic atoms b and p, hydrogen and all other elements, all classes of chirality (@TH1,
# @SP2, @OH12), atom classes, any atom (*), and parts joined by a dot. It takes three productions a plain atom, where
# theirs takes four. Lists recurse to the right, where theirs do to the left: a leftmost derivation then goes along the
# string, and whether another atom follows is settled at the atom before it, not, for all of a chain, before the first.
SMILES = r"""
chain -> unit | unit chain | unit bond chain | unit '.' chain
unit -> atom | atom rings | atom branches | atom rings branches
rings -> ring | ring rings
ring -> digit | bond digit | '%' digit digit | bond '%' digit digit | '%(' number ')' | bond '%(' number ')'
branches -> branch | branch branches
branch -> '(' chain ')' | '(' bond chain ')' | '(' '.' chain ')'
bond -> '-' | '=' | '#' | '$' | ':' | '/' | '\' | '~' | '->' | '<-'
atom -> 'C' | 'c' | 'N' | 'n' | 'O' | 'o' | 'S' | 's' | 'P' | 'p' | 'B' | 'b' | 'F' | 'Cl' | 'Br' | 'I' | '*'
      | '[' isotope symbol chirality hydrogens charge class ']'
isotope -> | digit | digit digit | digit digit digit
symbol -> 'C' | 'c' | 'N' | 'n' | 'O' | 'o' | 'S' | 's' | 'P' | 'p' | 'B' | 'b' | 'F' | 'Cl' | 'Br' | 'I' | '*'
        | 'H' | 'Si' | 'si' | 'Se' | 'se' | 'As' | 'as' | 'Te' | 'te' | 'Ge' | 'Sn' | 'Pb' | 'Sb' | 'Bi' | 'Al'
        | 'Li' | 'Na' | 'K' | 'Rb' | 'Cs' | 'Be' | 'Mg' | 'Ca' | 'Sr' | 'Ba' | 'Zn' | 'Cd' | 'Hg' | 'Ti' | 'V' | 'Cr'
        | 'Mn' | 'Fe' | 'Co' | 'Ni' | 'Cu' | 'Mo' | 'W' | 'Ru' | 'Rh' | 'Pd' | 'Ag' | 'Ir' | 'Pt' | 'Au' | 'Gd' | 'Tc'
        | 'He' | 'Ne' | 'Ar' | 'Kr' | 'Xe' | 'Rn' | 'Fr' | 'Ra' | 'Sc' | 'Y' | 'Zr' | 'Hf' | 'Rf' | 'Nb' | 'Ta' | 'Db'
        | 'Sg' | 'Re' | 'Bh' | 'Os' | 'Hs' | 'Mt' | 'Ds' | 'Rg' | 'Cn' | 'Ga' | 'In' | 'Tl' | 'Nh' | 'Fl' | 'Mc' | 'Lv'
        | 'Po' | 'At' | 'Ts' | 'Og' | 'La' | 'Ce' | 'Pr' | 'Nd' | 'Pm' | 'Sm' | 'Eu' | 'Tb' | 'Dy' | 'Ho' | 'Er' | 'Tm'
        | 'Yb' | 'Lu' | 'Ac' | 'Th' | 'Pa' | 'U' | 'Np' | 'Pu' | 'Am' | 'Cm' | 'Bk' | 'Cf' | 'Es' | 'Fm' | 'Md' | 'No'
        | 'Lr'
chirality -> | '@' | '@@' | '@TH' number | '@AL' number | '@SP' number | '@TB' number | '@OH' number
hydrogens -> | 'H' | 'H' digit
charge -> | '+' | '-' | '+' digit | '-' digit | '+' digit digit | '-' digit digit | '++' | '--'
class -> | ':' number
number -> digit | digit number
digit -> '0' | '1' | '2' | '3' | '4' | '5' | '6' | '7' | '8' | '9'
"""

# Kusner et al. 2017, appendix: the 76 productions of their experiments on ZINC, in their order. Two of them lead to a
# symbol `class` that has no production, and are left out, as is the last one, which pads.
PUBLISHED_SMILES = r"""
smiles -> chain
atom -> bracket_atom | aliphatic_organic | aromatic_organic
aliphatic_organic -> 'B' | 'C' | 'N' | 'O' | 'S' | 'P' | 'F' | 'I' | 'Cl' | 'Br'
aromatic_organic -> 'c' | 'n' | 'o' | 's'
bracket_atom -> '[' BAI ']'
BAI -> isotope symbol BAC | symbol BAC | isotope symbol | symbol
BAC -> chiral BAH | BAH | chiral
BAH -> hcount BACH | BACH | hcount
BACH -> charge
symbol -> aliphatic_organic | aromatic_organic
isotope -> DIGIT | DIGIT DIGIT | DIGIT DIGIT DIGIT
DIGIT -> '1' | '2' | '3' | '4' | '5' | '6' | '7' | '8'
chiral -> '@' | '@@'
hcount -> 'H' | 'H' DIGIT
charge -> '-' | '-' DIGIT | '-' DIGIT DIGIT | '+' | '+' DIGIT | '+' DIGIT DIGIT
bond -> '-' | '=' | '#' | '/' | '\'
ringbond -> DIGIT | bond DIGIT
branched_atom -> atom | atom RB | atom BB | atom RB BB
RB -> RB ringbond | ringbond
BB -> BB branch | branch
branch -> '(' chain ')' | '(' bond chain ')'
chain -> branched_atom | chain branched_atom | chain bond branched_atom
"""

GRAMMARS: Registry[str] = Registry(
    "grammar", {"expressions": EXPRESSIONS, "smiles": SMILES, "smiles-published": PUBLISHED_SMILES}
)


def load_grammar(name_or_path: str | Path) -> Grammar:
    """Return a grammar by name, or read it from a text file.

    Productions of a file that no derivation of a string can use are left out, and a line on stderr names them.

    Args:
        name_or_path: A name in `GRAMMARS`, which comes first, or the path of a UTF-8 text file, in the plain notation
            or one that `expost.grammar.notation` translates, which a line on stderr names.

    Raises:
        UsageError: if it is neither a name nor a file.
        DataError: if the file is a pipe or a device, is not text, exceeds a budget of `expost.grammar.budgets`, or is
            no usable grammar, or the name of a symbol without a production is most likely another's with an error of
            typing.

    Example:
        >>> load_grammar("expressions").describe()
        '11 productions and padding, 2 nonterminals, 11 terminals; left-recursive: S'
    """
    if isinstance(name_or_path, str) and name_or_path in GRAMMARS:
        return Grammar.from_text(GRAMMARS[name_or_path], name=name_or_path)
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise UsageError(f"grammar {name_or_path!r} is no name and no path; names: {', '.join(GRAMMARS)}")
    path = Path(name_or_path)
    if path.exists() and not path.is_dir():
        size_of(path)  # a pipe is refused here: opening it would wait for its writer
    try:
        with path.open("rb") as file:
            data = file.read(MOST_TEXT + 1)
        text = data.decode("utf-8") if len(data) <= MOST_TEXT else ""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; a grammar is a text file of rules such as S -> 'a' S") from None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UsageError(f"no grammar and no file '{name_or_path}'; names: {', '.join(GRAMMARS)}") from None
    except OSError as error:
        raise UsageError(f"cannot read the grammar {path}: {error.strerror}; give the path of a text file") from None
    if len(data) > MOST_TEXT:
        raise DataError(f"{path} has more than {MOST_TEXT:,} bytes, the budget of a grammar; shorten it")
    rules, notation = read_rules(text, str(path))
    grammar = Grammar.from_rules(rules, None if notation else text, prune=True, name=str(path))
    if notation:
        say(f"grammar {path}: read as {notation}; {grammar.describe()}")
    if left_out := useless(rules, str(path)):
        count = len(left_out) + len(grammar.productions)
        listing = "; ".join(f"{shown(production)} ({reason})" for production, reason in left_out[:LISTED])
        more = f"; and {len(left_out) - LISTED} more" if len(left_out) > LISTED else ""
        say(
            f"grammar {path}: {len(left_out)} of {count} productions are in no derivation and left out: {listing}{more}"
        )
    return grammar
