"""Grammars: strings as derivations, packed, and decoded under masks."""
