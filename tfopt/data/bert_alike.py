"""Whether a tokenizer is the one that clients on devices have: BERT's, uncased."""

from __future__ import annotations

from tfopt.data.tokenizer import Tokenizer

# Special tokens that clients look up by name, and the id that stands for padding.
_NAMES, _PAD_ID = ("[UNK]", "[CLS]", "[SEP]"), 0


def why_no_bert(tokenizer: Tokenizer) -> str | None:
    """Why a client with BERT's own tokenizer would read other ids.

    Args:
        tokenizer: of a model.

    Returns:
        What is other than in uncased BERT; None where nothing is.
    """
    found = tokenizer.description()
    model, normalizer = found["model"], found["normalizer"] or {}
    if model["type"] != "WordPiece":
        return f"they know WordPiece alone, and the tokenizer is {model['type']}"
    if not tokenizer.lowercase:
        return "they make texts lower case, and the vocabulary is cased"
    if (normalizer.get("type") != "BertNormalizer"
            or not normalizer.get("handle_chinese_chars")
            or (found["pre_tokenizer"] or {}).get("type") != "BertPreTokenizer"
            or model["continuing_subword_prefix"] != "##"):
        return "they split texts as BERT does, and the tokenizer does not"
    missing = [name for name in _NAMES if name not in model["vocab"]]
    if missing:
        return f"they need {', '.join(_NAMES)}; the vocabulary lacks {missing[0]}"
    if tokenizer.pad_id != _PAD_ID:
        return f"they pad with the id {_PAD_ID}, and the model with {tokenizer.pad_id}"
    return None
