"""Operations on projects."""

from __future__ import annotations

from wenfang.core.ids import new_id
from wenfang.core.operation import Answer, Request, operation
from wenfang.core.records import Project

from .app import Studio
from .names import Name

__all__: list[str] = []


class CreateProject(Request):
    """A new project."""

    name: Name


class ListProjects(Request):
    """Which projects there are."""


class Projects(Answer):
    """Projects, newest first."""

    projects: list[Project]


@operation("project.create", permission="project:admin", http="POST /api/v1/projects")
def create_project(studio: Studio, request: CreateProject) -> Project:
    """Open a project: a room of its own for data, models and people."""
    project = Project(id=new_id("pj"), name=request.name)
    studio.put(project)
    studio.tell("project.created", project.id, name=project.name)
    return project


@operation("project.list", permission="project:read", http="GET /api/v1/projects")
def list_projects(studio: Studio, request: ListProjects) -> Projects:  # noqa: ARG001 every operation takes its request
    """List the projects you may see."""
    found = studio.tables.find(Project, newest_first=True)
    return Projects(projects=[p for p in found if studio.may_see(p.name)])
