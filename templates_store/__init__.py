"""What is kept between building and asking: class templates, bundles, classifiers, and how files become images.

Not here: how any of it was computed. Class templates are chosen in `templates`. Rooms: `bundles`, `classifiers`,
`images`, `files`.
"""

from modeguard.templates_store.templates import MissingClasses, TemplateError, choose_templates

__all__ = ["MissingClasses", "TemplateError", "choose_templates"]
