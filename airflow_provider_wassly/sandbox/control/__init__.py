"""
The control API: lets a test in another process or language inspect and control the sandbox.

It is JSON without authentication, under ``/sandbox/``:

=========================================  =================================================================
``GET messages?after=ID&limit=N``          ``{"messages": […], "more": bool}``, oldest first; 100 by default,
                                           1000 at most. ``before=ID``: the newest ones before that id.
                                           ``number=…``: only messages to that number
``GET messages/ID``                        one message
``GET messages/ID/document``, ``…/media``  the file, as a download
``DELETE messages``                        delete all messages
``GET contacts?before=ID&limit=N``         ``{"contacts": […], "more": bool}``: the numbers that got messages,
                                           each with their count and the ``last`` one; newest first
``GET calls``                              ``{"calls": […]}``: the last 10,000 API calls, oldest first
``GET faults``                             ``{"faults": […], "kinds": {…}}``: the active faults, and all kinds
``POST faults``                            add a fault: ``{"name": …}`` and the other fields of
                                           :class:`~airflow_provider_wassly.sandbox.Fault`
``DELETE faults``, ``DELETE faults/ID``    remove all faults, or one
``GET state``, ``PATCH state``             settings and counters; you can set ``latency`` (in seconds) and
                                           ``conversations``
``GET events``                             the state as server-sent events: at once, and after each change
``POST devices/INSTANCE_ID/connect``       connect a device; or ``…/disconnect``
``POST tokens/expire``                     invalidate all tokens
``POST reset``                             return to the initial state
=========================================  =================================================================

The answer to bad input is 400 (not JSON) or 422, with a ``message`` that names the field.
"""
