"""From rows in any place and shape to files of checked conversations, in the order of the work.

:mod:`~lifecycle.conversations.source` finds the files (:mod:`~lifecycle.conversations.hub`,
:mod:`~lifecycle.conversations.remote`, :mod:`~lifecycle.conversations.blobs`),
:mod:`~lifecycle.conversations.sample` draws rows, :mod:`~lifecycle.conversations.read` reads them
(:mod:`~lifecycle.conversations.objects`, :mod:`~lifecycle.conversations.pipeline`),
:mod:`~lifecycle.conversations.shapes` makes conversations of them,
:mod:`~lifecycle.conversations.check` finds what is wrong with them,
:mod:`~lifecycle.conversations.tokens` measures them, :mod:`~lifecycle.conversations.write` writes
them, :mod:`~lifecycle.conversations.build` does all that for each split,
:mod:`~lifecycle.conversations.cache` keeps the result, and
:mod:`~lifecycle.conversations.summary` shows it.

All of it works on Arrow batches of a few hundred rows, so that memory does not grow with the data.
"""
