"""The ledger behind HTTP: the REST interface, the page, and the storage of code and logs.

``app.create_app`` makes the application, ``serving.serve`` runs it.
"""
