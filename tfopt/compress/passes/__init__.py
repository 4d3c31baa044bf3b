"""The passes, one a module; `compress.registry` finds them by looking here."""
