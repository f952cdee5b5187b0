"""
The control API: what a test in another process, or in another language, asserts on and sets.

All of it is JSON without authentication, under ``/sandbox/``:

=========================================  =================================================================
``GET messages?after=ID&limit=N``          ``{"messages": […], "more": bool}``, newest last; at most 1000.
                                           ``before=ID``: the last ones before it. ``number=…``: of one recipient
``GET messages/ID``                        one message
``GET messages/ID/document``, ``…/media``  the file, as a download
``DELETE messages``                        forget the messages
``GET contacts?before=ID&limit=N``         ``{"contacts": […], "more": bool}``: who got messages, each with the
                                           number of them and the ``last``; who got the newest first
``GET calls``                              ``{"calls": […]}``, the last 10,000 calls of the API, oldest first
``GET faults``                             ``{"faults": […], "kinds": {…}}``: those that wait to strike, those there are
``POST faults``                            add one: ``{"name": …}`` and the other fields of
                                           :class:`~airflow_provider_wassly.sandbox.Fault`
``DELETE faults``, ``DELETE faults/ID``    drop all or one
``GET state``, ``PATCH state``             settings and counters; ``latency`` and ``conversations`` can be set
``GET events``                             the state as server-sent events: at once, and whenever something changed
``POST devices/INSTANCE_ID/connect``       or ``…/disconnect``
``POST tokens/expire``                     make all tokens invalid
``POST reset``                             be as at the start
=========================================  =================================================================

Bad input is answered with 400 (not JSON) or 422, and a ``message`` that names the field.
"""
