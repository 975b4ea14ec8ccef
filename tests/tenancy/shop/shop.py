"""A stranger's application: customers and their orders. It knows the library's documented names and nothing else."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Flask, abort, request
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped

from tenancy import (
    SQLDirectory,
    TenantForeignKey,
    TenantMixin,
    TenantTable,
    TenantUnique,
    create_tenant_engine,
    tenant_relationship,
    tenant_sessionmaker,
)
from tenancy.flask import Tenancy
from tenancy.resolvers import from_subdomain


class Base(DeclarativeBase):
    pass


class Tenant(TenantMixin, Base):
    __tablename__ = "tenants"


class Customer(TenantTable, Base):
    __tablename__ = "customers"
    name: Mapped[str]
    email: Mapped[str | None]
    __table_args__ = (TenantUnique("email"),)


class Order(TenantTable, Base):
    __tablename__ = "orders"
    title: Mapped[str]
    cents: Mapped[int]
    customer_id: Mapped[UUID | None]
    customer: Mapped[Customer | None] = tenant_relationship("customer_id")
    __table_args__ = (TenantForeignKey("customer_id", "customers", ondelete="SET NULL"),)


def create_app(url: str) -> Flask:
    app = Flask(__name__)
    sessions = tenant_sessionmaker(create_tenant_engine(url))
    tenancy = Tenancy(sessions=sessions, directory=SQLDirectory(Tenant), resolvers=[from_subdomain("shop.test")])
    tenancy.init_app(app)

    def found(model: Any, row_id: UUID) -> Any:
        return tenancy.session.get(model, row_id) or abort(404)

    @app.get("/health")
    @tenancy.exempt("asked by the load balancer, which knows no tenant")
    def health() -> str:
        return "ok"

    @app.get("/customers")
    def customers() -> dict[str, str]:
        return {str(row.id): row.name for row in tenancy.session.scalars(select(Customer))}

    @app.post("/customers")
    def add_customer() -> tuple[dict[str, str], int]:
        customer = Customer(name=request.json["name"], email=request.json.get("email"))
        tenancy.session.add(customer)
        tenancy.session.commit()
        return {"id": str(customer.id)}, 201

    @app.get("/customers/<uuid:customer_id>")
    def customer(customer_id: UUID) -> dict[str, str]:
        return {"name": found(Customer, customer_id).name}

    @app.delete("/customers/<uuid:customer_id>")
    def remove_customer(customer_id: UUID) -> tuple[str, int]:
        tenancy.session.delete(found(Customer, customer_id))
        tenancy.session.commit()
        return "", 204

    @app.get("/customers/<uuid:customer_id>/orders/<uuid:order_id>")
    def order_of(customer_id: UUID, order_id: UUID) -> dict[str, str]:
        row = found(Order, order_id)
        return {"title": row.title} if row.customer_id == found(Customer, customer_id).id else abort(404)

    @app.patch("/orders/<uuid:id>")
    def change_order(id: UUID) -> dict[str, str | None]:  # noqa: A002 - as people name it
        row = found(Order, id)
        row.title = request.json.get("title", row.title)
        if request.json.get("customer_id"):
            row.customer_id = found(Customer, UUID(request.json["customer_id"])).id
        tenancy.session.commit()
        return {"title": row.title}

    return app
